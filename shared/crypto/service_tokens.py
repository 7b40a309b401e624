"""What one service shows another: who calls, for which account and mode, which method, for a minute.

`<version>.<claims>.<mac>`, each but the first in base64url. The key comes from the deployment's root secret, so whoever has
that can call; an account's credential never goes on to another service.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from shared.clock import Clock
from shared.crypto.root_secret import Purpose, RootSecret
from shared.tenancy import Mode, Tenant

LIFETIME: Final = timedelta(seconds=60)
CLOCK_TOLERANCE: Final = timedelta(seconds=5)
"""By how much the clocks of two machines may differ. It decides no right of a caller's, only how old a token may be."""
_US: Final = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class ServiceTokenError(Exception):
    """The token is none of this deployment's, or not for this call, or too old."""


@dataclass(frozen=True, slots=True)
class ServiceCall:
    """What a token is good for: `issuer` and `audience` are services' names, `method` is a path."""

    issuer: str
    audience: str
    tenant: Tenant
    method: str


class ServiceTokens:
    """Makes and checks them, under each live version of the root secret."""

    def __init__(self, root: RootSecret, clock: Clock) -> None:
        self._keys = {version: root.derive(Purpose.SERVICE_TOKEN, version) for version in root.live_versions}
        self._current = root.current
        self._clock = clock

    def mint(self, call: ServiceCall) -> str:
        """A token for one call, made right before it."""
        claims = {
            "iss": call.issuer, "aud": call.audience, "acc": call.tenant.account_id, "mode": call.tenant.mode.value,
            "mth": call.method, "iat": (self._clock.now() - _EPOCH) // _US,
        }  # fmt: skip
        body = base64.urlsafe_b64encode(json.dumps(claims, sort_keys=True).encode()).decode()
        return f"{self._current}.{body}.{_text(self._mac(self._current, body))}"

    def verify(self, token: str, *, audience: str, method: str) -> ServiceCall:
        """What the token is good for. ServiceTokenError unless that is this call, now."""
        version, _, rest = token.partition(".")
        body, _, mac = rest.partition(".")
        live = int(version) if version.isascii() and version.isdigit() and len(version) <= 3 else -1
        if live not in self._keys or not hmac.compare_digest(_text(self._mac(live, body)).encode(), mac.encode()):
            raise ServiceTokenError
        try:
            claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body))
        except (binascii.Error, ValueError):
            raise ServiceTokenError from None
        age = self._clock.now() - (_EPOCH + claims["iat"] * _US)
        if not -CLOCK_TOLERANCE <= age <= LIFETIME or (claims["aud"], claims["mth"]) != (audience, method):
            raise ServiceTokenError
        return ServiceCall(claims["iss"], audience, Tenant(claims["acc"], Mode(claims["mode"])), method)

    def _mac(self, version: int, body: str) -> bytes:
        return hmac.digest(self._keys[version], f"lictor/1|service-token|{version}|{body}".encode(), "sha256")


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode()
