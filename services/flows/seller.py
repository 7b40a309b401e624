"""A vendor's server and its customers' computers, as the flows need them: licenses issued with a machine on a seat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lictor import Lictor, ValidationResult
from lictor.license.v1.license_service_pb2 import CreateLicenseResponse

LAPTOP: Final = "laptop-0001"


@dataclass(frozen=True, slots=True)
class Seller:
    """`licenses` and `machines` are the same process, or one each."""

    licenses: Lictor
    machines: Lictor
    policy_id: str

    def issue(
        self, *, tier_id: str = "", customer_email: str = "", request_id: str | None = None
    ) -> CreateLicenseResponse:
        """A license with the laptop activated on it."""
        issued = self.licenses.licenses.create(
            policy_id=self.policy_id, tier_id=tier_id, customer_email=customer_email, request_id=request_id
        )
        self.machines.activate(key=issued.key, fingerprint=LAPTOP)
        return issued

    def validate(self, key: str, *, required_tier: str = "", fingerprint: str = LAPTOP) -> ValidationResult:
        """What the application on the laptop asks when it starts."""
        return self.licenses.validate(key=key, required_tier=required_tier, fingerprint=fingerprint)
