"""Who calls, and whether they may."""

from __future__ import annotations

from typing import Protocol

from shared.errors import DomainError, Reason
from shared.rpc.context import CallContext
from shared.rpc.routes import Body, Endpoint, MethodSpec, Middleware
from shared.tenancy import Principal


class Authenticator(Protocol):
    """Turns the `authorization` metadata into a principal."""

    async def authenticate(self, authorization: str | None) -> Principal:
        """The caller behind a credential.

        Args:
            authorization: The value as sent, such as `Bearer sk_test_...`; None when there is none.

        Raises:
            DomainError: CREDENTIALS_INVALID.
        """
        ...


def authentication(authenticator: Authenticator) -> Middleware:
    """Names the caller of every call that is not anonymous."""

    def layer(spec: MethodSpec, inner: Endpoint) -> Endpoint:
        if spec.anonymous:
            return inner

        async def call(context: CallContext, body: Body) -> bytes | None:
            values = context.take_authorization()
            if len(values) > 1:
                raise DomainError(Reason.CREDENTIALS_INVALID, "more than one authorization was sent")
            context.set_principal(await authenticator.authenticate(values[0] if values else None))
            return await inner(context, body)

        return call

    return layer


def authorization() -> Middleware:
    """Refuses callers without the scope that the method's rules name."""

    def layer(spec: MethodSpec, inner: Endpoint) -> Endpoint:
        scope = spec.rules.scope
        if spec.anonymous or not scope:
            return inner

        async def call(context: CallContext, body: Body) -> bytes | None:
            if scope not in context.principal.scopes:
                raise DomainError(
                    Reason.CALLER_NOT_ALLOWED, f"the call needs the scope {scope}", metadata={"scope": scope}
                )
            return await inner(context, body)

        return call

    return layer
