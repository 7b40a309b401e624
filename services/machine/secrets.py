"""Secrets of machines: made from the machine's id under the root secret, so that nothing of them is kept anywhere."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode

from shared.crypto.root_secret import Purpose, RootSecret
from shared.errors import FieldViolation, fields_invalid
from shared.tenancy import Tenant

PREFIX = "ms_"
RESUME_PREFIX = "rs_"


class MachineSecrets:
    """A machine's secret is the same for as long as it holds its seat: who lost it gets it again by activating."""

    def __init__(self, root: RootSecret) -> None:
        self._keys = tuple(root.derive(Purpose.MACHINE_SECRET, version) for version in root.live_versions)

    def of(self, tenant: Tenant, machine_id: str) -> str:
        """The secret of a machine."""
        return _made(self._keys[0], tenant, machine_id)

    def is_of(self, secret: str, tenant: Tenant, machine_id: str) -> bool:
        """Whether a secret is that of a machine; compared in constant time."""
        given = secret.encode()
        return any(hmac.compare_digest(_made(key, tenant, machine_id).encode(), given) for key in self._keys)

    def resume_token(self, tenant: Tenant, machine_id: str, epoch: int) -> str:
        """With which a stream goes on that holds a machine's lease."""
        named = f"{machine_id}.{epoch}"
        return f"{RESUME_PREFIX}{named}.{_made(self._keys[0], tenant, named).removeprefix(PREFIX)}"

    def resumed(self, tenant: Tenant, token: str) -> tuple[str, int]:
        """The machine and the epoch of a token. FIELD_INVALID for one that was not made here."""
        named, _, told = token.removeprefix(RESUME_PREFIX).rpartition(".")
        machine_id, _, epoch = named.rpartition(".")
        if not self.is_of(PREFIX + told, tenant, named) or not epoch.isdecimal():
            raise fields_invalid(
                (FieldViolation("resume_token", "TOKEN_INVALID", "is not from an answer of such a stream"),)
            )
        return machine_id, int(epoch)


def _made(key: bytes, tenant: Tenant, machine_id: str) -> str:
    told = f"{tenant.account_id}/{tenant.mode.value}/{machine_id}".encode()
    return PREFIX + urlsafe_b64encode(hmac.digest(key, told, hashlib.sha256)).decode().rstrip("=")
