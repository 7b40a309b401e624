"""Who calls, and whether they may."""

from __future__ import annotations

from typing import Final, Protocol

from shared.crypto.service_tokens import ServiceTokens
from shared.db.lanes import LANE
from shared.errors import DomainError, Reason
from shared.rpc.accounts import AccountPlaces
from shared.rpc.context import CallContext
from shared.rpc.internal import authenticated
from shared.rpc.routes import Body, Endpoint, MethodSpec, Middleware, Serving
from shared.tenancy import Principal, PrincipalKind

_NOUNS: Final = {
    PrincipalKind.PUBLISHABLE_KEY: "a publishable key",
    PrincipalKind.LICENSE_KEY: "a license key",
    PrincipalKind.CUSTOMER_SESSION: "a customer session",
}
NARROW_KINDS: Final = frozenset(_NOUNS)
"""Callers who reach only the methods whose rules name their kind."""


def not_for(principal: Principal, message: str) -> DomainError:
    """CALLER_NOT_ALLOWED because of what kind of caller it is, whatever its scopes."""
    return DomainError(Reason.CALLER_NOT_ALLOWED, message, metadata={"caller": principal.kind.value})


_NOT_IN_GRACE: Final = frozenset({Reason.RECORD_UNREACHABLE, Reason.CALLER_NOT_ALLOWED})
"""What a caller known from before does not hear in grace: it may be allowed by now what it was not."""


class Authenticator(Protocol):
    """Turns a call's credential into a principal."""

    async def authenticate(self, authorization: str | None, peer_identity: str, *, in_grace: bool = False) -> Principal:
        """The caller behind a credential. The `authorization` counts when there is one, else the certificate.

        Args:
            authorization: The value as sent, such as `Bearer sk_test_...`; None when there is none.
            peer_identity: The URI in the caller's certificate; empty when it has shown none.
            in_grace: Whether what was known last will do while the record is away: the principal then has `stale_as_of`.

        Raises:
            DomainError: RECORD_UNREACHABLE; CREDENTIALS_INVALID; CALLER_NOT_ALLOWED for a license key that may not be a
                credential.
        """
        ...


def authentication(
    authenticator: Authenticator, places: AccountPlaces, services: ServiceTokens | None = None
) -> Middleware:
    """Names the caller of every call that is not anonymous, and keeps one of its account's places until the call ends.

    A write that outlives its caller goes on in here, and so keeps its place. `services` knows the tokens of other services.
    """

    def layer(spec: MethodSpec, inner: Endpoint) -> Endpoint:
        if spec.anonymous:
            return inner
        if spec.rules.anonymous:
            return _as_stranger(places, inner)
        if spec.rules.internal:
            return _as_service(spec.path, services, places, inner)
        in_grace, hot = spec.rules.in_grace, spec.rules.hot

        async def call(context: CallContext, body: Body) -> bytes | None:
            values = context.take_authorization()
            if len(values) > 1:
                raise DomainError(Reason.CREDENTIALS_INVALID, "more than one authorization was sent")
            authorization = values[0] if values else None
            peer_identity = context.peer_identity() if authorization is None else ""
            # What follows a colon is the license that a publishable key asks for: the account is the key's.
            credential = peer_identity if authorization is None else authorization.partition(":")[0]
            whose = arrived = places.arrive(credential)
            try:
                turn = None
                if hot and (turn := places.turns.at_once(whose)) is None:
                    turn = await places.turns.take(whose)
            except BaseException:
                places.leave(whose)
                raise
            try:
                principal = await authenticator.authenticate(authorization, peer_identity, in_grace=in_grace)
                whose = places.known(whose, credential, principal)
                context.set_principal(principal)
                if spec.kind.streams_responses:
                    context.authenticated_by(lambda: authenticator.authenticate(authorization, peer_identity))
                try:
                    return await inner(context, body)
                except DomainError as error:
                    if principal.stale_as_of is None or error.reason not in _NOT_IN_GRACE:
                        raise
                # There is no answer in grace: the call is as any other, and the record may only be slow.
                context.set_principal(await authenticator.authenticate(authorization, peer_identity))
                return await inner(context, body)
            finally:
                if turn is not None:
                    places.turns.leave(arrived, turn)
                places.leave(whose)
                LANE.set("")

        return call

    return layer


def _as_stranger(places: AccountPlaces, inner: Endpoint) -> Endpoint:
    """Calls that are nobody's share the places of those whose caller is not known yet."""

    async def call(context: CallContext, body: Body) -> bytes | None:
        whose = places.arrive("")
        try:
            return await inner(context, body)
        finally:
            places.leave(whose)
            LANE.set("")

    return call


def _as_service(path: str, services: ServiceTokens | None, places: AccountPlaces, inner: Endpoint) -> Endpoint:
    """Calls of other services count under the account that they are for."""

    async def call(context: CallContext, body: Body) -> bytes | None:
        values = context.take_authorization()
        principal = authenticated(services, path, values[0] if len(values) == 1 else None)
        whose = places.arrive("")
        try:
            whose = places.known(whose, f"service {principal.account_id}", principal)
            context.set_principal(principal)
            return await inner(context, body)
        finally:
            places.leave(whose)
            LANE.set("")

    return call


def authorization() -> Middleware:
    """Refuses callers whose kind the method's rules keep out, and callers without the scope that they name."""

    def layer(spec: MethodSpec, inner: Endpoint) -> Endpoint:
        scope = spec.rules.scope
        if spec.anonymous or spec.rules.anonymous:
            return inner
        kept_out = NARROW_KINDS - spec.rules.also_serves

        def call(context: CallContext, body: Body) -> Serving:
            principal = context.principal
            if principal.kind in kept_out:
                raise not_for(principal, f"{spec.name} is not for callers with {_NOUNS[principal.kind]}")
            if scope and principal.kind is not PrincipalKind.CUSTOMER_SESSION and scope not in principal.scopes:
                raise DomainError(
                    Reason.CALLER_NOT_ALLOWED, f"the call needs the scope {scope}", metadata={"scope": scope}
                )
            return inner(context, body)

        return call

    return layer
