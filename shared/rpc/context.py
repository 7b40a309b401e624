"""What a handler knows of its call, whatever transport brought it.

`CallContext` has the used subset of `grpc.aio.ServicerContext`, so that the standard health and reflection servicers
run unmodified.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic
from typing import Final, NoReturn, Protocol, TypeAlias, cast

from google.protobuf.message import Message

from shared.ids import Prefix, new_id
from shared.observe.logging import CALL
from shared.tenancy import SHIPPED_KINDS, Principal, PrincipalKind

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]

_HIDDEN_PREFIXES: Final = ("lictor-", "x-envoy-", "x-forwarded-")
_TRACEPARENT: Final = re.compile(r"^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
MAX_METADATA_BYTES: Final = 16 * 1024
ENTRY_OVERHEAD_BYTES: Final = 32
"""What HTTP/2 adds to each header when it counts the size of a list (RFC 9113, 6.5.2)."""


class CallAbortedError(Exception):
    """`context.abort()`, as standard servicers call it: the call ends with this gRPC code. Ours raise `DomainError`."""

    def __init__(self, code: int, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class Wire(Protocol):
    """The transport's side of one call."""

    def peer(self) -> str:
        """The other end's address, such as `ipv4:127.0.0.1:5000`."""
        ...

    def peer_identity(self) -> str:
        """The one URI in the certificate that the other end has shown and proven; empty when there is no such."""
        ...

    async def send(self, message: bytes) -> None:
        """Sends one message of a response stream."""
        ...

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        """Sends the response's headers before its first message."""
        ...


def metadata_bytes(metadata: Iterable[tuple[str, str | bytes]]) -> int:
    """The size of metadata as HTTP/2 counts it."""
    size = 0
    for key, value in metadata:
        size += len(key) + len(value) + ENTRY_OVERHEAD_BYTES
    return size


def _status_number(code: object) -> int:
    """The number of a gRPC code, given as a number or as `grpc.StatusCode`, whose value is (number, name)."""
    if isinstance(code, int):
        return int(code)
    return cast("tuple[int, str]", getattr(code, "value"))[0]  # noqa: B009 - grpc must not be imported for its type


class CallContext:
    """One call. Made by the transport in the task that serves it, completed by the middleware, read by handlers.

    Attributes:
        method: The method's path, `/package.Service/Method`.
        service: The service's full name.
        deadline: When the handler must have answered, by `monotonic`, as loops do; infinite where there is none.
        time_left_s: Seconds that the caller gave, read once on arrival; None when it gave no deadline.
        arrived: When it arrived, by the same clock.
        effect_wait_s: How long the answer will wait for what the call changes to hold everywhere; 0 for not at all.
        restricting_wait_s: How long that is for a method that takes a right away only at times; 0 for all others.
        metadata_size: Bytes of inbound metadata, as HTTP/2 counts them.
        outliving: A write that goes on though its caller gave up.
        trailing: Metadata to send after the answer.
        code: The gRPC code that a servicer set; 0 means OK.
        details: The message that goes with `code`.
    """

    effect_wait_s: float = 0.0
    restricting_wait_s: float = 0.0
    outliving: asyncio.Task[bytes | None] | None = None
    trailing: Metadata = ()
    code: int = 0
    details: str = ""
    _call_id: str = ""
    _authenticate: Callable[[], Awaitable[Principal]] | None = None
    _principal: Principal | None = None
    _callbacks: list[Callable[[CallContext], None]] | None = None
    _charge: Callable[[Principal, str], None] | None = None
    _charge_activation: Callable[[Principal, str], None] | None = None
    _credential_taken: bool = False
    _done: bool = False
    _cancelled: bool = False
    # What most calls leave as it is stands here, so that making a call does not cost a step for each.

    def __init__(self, *, method: str, service: str, wire: Wire, metadata: Metadata, time_left_s: float | None) -> None:
        CALL.set(self)
        self.method = method
        self.service = service
        self.arrived = monotonic()
        self.time_left_s = time_left_s
        self.deadline = math.inf if time_left_s is None else self.arrived + time_left_s
        self.metadata_size = metadata_bytes(metadata)
        self._wire = wire
        self._metadata = metadata

    @property
    def call_id(self) -> str:
        """The id of this call in logs and in `RequestInfo`, made when it is first asked for: most calls need none."""
        if not self._call_id:
            self._call_id = new_id(Prefix.CALL)
        return self._call_id

    @property
    def trace_id(self) -> str | None:
        """The W3C trace id, when the caller sent one."""
        for key, value in self._metadata:
            if key == "traceparent" and isinstance(value, str) and (found := _TRACEPARENT.match(value)):
                return found[1]
        return None

    @property
    def principal(self) -> Principal:
        """The caller.

        Raises:
            RuntimeError: The call is anonymous, or not authenticated yet.
        """
        if self._principal is None:
            raise RuntimeError("the call has no principal: it is anonymous, or not authenticated yet")
        return self._principal

    def set_principal(self, principal: Principal) -> None:
        """Names the caller; done once, by the authentication layer."""
        self._principal = principal

    def authenticated_by(self, authenticate: Callable[[], Awaitable[Principal]]) -> None:
        """Says how the caller's credential is looked at again; for the layer of authentication."""
        self._authenticate = authenticate

    async def authenticate_again(self) -> Principal:
        """Who the caller is by now, in a stream of answers, which may outlast its credential.

        Raises:
            DomainError: CREDENTIALS_INVALID.
        """
        if self._authenticate is None:
            raise RuntimeError("only a stream of answers outlasts its credential")
        return await self._authenticate()

    def charged_by(
        self, charge: Callable[[Principal, str], None], charge_activation: Callable[[Principal, str], None]
    ) -> None:
        """Says how a call about a license is counted, and a machine that comes to one; for the layer of rate limits."""
        self._charge = charge
        self._charge_activation = charge_activation

    def charge_license(self, whose: str) -> None:
        """Counts a call of a publishable key against the license that it turned out to be about; for nobody else.

        Raises:
            DomainError: RATE_LIMITED.
        """
        if self._charge is not None and self.principal.kind is PrincipalKind.PUBLISHABLE_KEY:
            self._charge(self.principal, whose)

    def charge_activation(self, license_id: str) -> None:
        """Counts a machine that comes to a license for software that was shipped; for nobody else.

        Raises:
            DomainError: RATE_LIMITED.
        """
        if self._charge_activation is not None and self.principal.kind in SHIPPED_KINDS:
            self._charge_activation(self.principal, license_id)

    def only_authorization(self) -> str | None:
        """The `authorization`, for what comes before the layers; None where there is not just one, of text."""
        found: str | bytes | None = None
        for key, value in self._metadata:
            if key == "authorization":
                if found is not None:
                    return None
                found = value
        return found if isinstance(found, str) else None

    def take_authorization(self) -> list[str]:
        """The `authorization` values, for the authentication layer. Afterwards they are gone: no handler sees them."""
        if self._credential_taken:
            return []
        self._credential_taken = True
        found: list[str] = []
        for key, value in self._metadata:
            if key == "authorization":
                found.append(value if isinstance(value, str) else "")
        return found

    def remaining_s(self) -> float:
        """Seconds until the deadline, never negative."""
        return max(0.0, self.deadline - monotonic())

    def time_remaining(self) -> float | None:
        """As `remaining_s`, and None when there is no deadline."""
        return None if math.isinf(self.deadline) else self.remaining_s()

    def invocation_metadata(self) -> Metadata:
        """What the caller sent, without the credential and without `lictor-*`, `x-envoy-*` and `x-forwarded-*`."""
        return tuple(
            (key, value)
            for key, value in self._metadata
            if key != "authorization" and not key.startswith(_HIDDEN_PREFIXES)
        )

    def peer(self) -> str:
        return self._wire.peer()

    def peer_identity(self) -> str:
        """The one URI in the caller's certificate, such as a SPIFFE ID; empty without, and without mutual TLS."""
        return self._wire.peer_identity()

    async def abort(self, code: object, details: str = "", trailing_metadata: Metadata = ()) -> NoReturn:
        """Ends the call with a gRPC code. Raises `CallAbortedError`, which must not be swallowed."""
        if trailing_metadata:
            self.set_trailing_metadata(trailing_metadata)
        raise CallAbortedError(_status_number(code), details or self.details)

    def set_code(self, code: object) -> None:
        """With a code other than OK the answer is discarded, as in grpc."""
        self.code = _status_number(code)

    def set_details(self, details: str) -> None:
        self.details = details

    def set_trailing_metadata(self, trailing_metadata: Iterable[tuple[str, str | bytes]]) -> None:
        self.trailing = tuple((key, value) for key, value in trailing_metadata)

    async def send_initial_metadata(self, initial_metadata: Iterable[tuple[str, str | bytes]]) -> None:
        await self._wire.send_initial_metadata(tuple((key, value) for key, value in initial_metadata))

    async def write(self, message: Message) -> None:
        """Sends one message of a response stream."""
        await self._wire.send(message.SerializeToString())

    def add_done_callback(self, callback: Callable[[CallContext], None]) -> None:
        """Calls back once the answer is sent or the caller is gone."""
        if self._callbacks is None:
            self._callbacks = []
        self._callbacks.append(callback)

    def done(self) -> bool:
        """Whether the call is over."""
        return self._done

    def cancelled(self) -> bool:
        """Whether the call ended because the caller went away."""
        return self._cancelled

    def mark_cancelled(self) -> None:
        """Says that the caller went away; for the transport."""
        self._cancelled = True

    def finish(self) -> None:
        """Says that the call is over and runs the callbacks; for the transport."""
        self._done = True
        for callback in self._callbacks or ():
            callback(self)
