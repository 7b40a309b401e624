"""Calls between services: which methods take them from whom, and who is behind one.

A method of this table takes a service's token and nothing else; every other method takes none.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from shared.crypto.service_tokens import ServiceTokenError, ServiceTokens
from shared.errors import DomainError, Reason
from shared.tenancy import Principal, PrincipalKind

SCHEME: Final = "Service"
"""What stands before a token in `authorization`."""
CALLERS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {"/lictor.license.v1.SigningService/SignFile": frozenset({"machine"})}
)
"""Each method, and the services that may call it."""


def audience_of(method: str) -> str:
    """The service that serves a method: `/lictor.license.v1.X/Y` is the license service's."""
    return method.split(".")[1]


def authenticated(tokens: ServiceTokens | None, method: str, authorization: str | None) -> Principal:
    """The service that calls, in the account and mode that it calls for. CREDENTIALS_INVALID says the same of all else."""
    scheme, _, token = (authorization or "").partition(" ")
    try:
        if tokens is None or scheme.lower() != SCHEME.lower():
            raise ServiceTokenError
        call = tokens.verify(token, audience=audience_of(method), method=method)
        if call.issuer not in CALLERS[method]:
            raise ServiceTokenError
    except ServiceTokenError:
        raise DomainError(
            Reason.CREDENTIALS_INVALID, "the method is for services of the deployment, with a token of their own"
        ) from None
    return Principal(
        PrincipalKind.SERVICE, call.tenant.account_id, call.tenant.mode, call.issuer, frozenset(), None
    )  # fmt: skip
