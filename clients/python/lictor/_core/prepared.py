"""A call as a value: what both flavours send, and how its answer becomes a result."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Generic, ParamSpec, Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from .errors import Internal

P = ParamSpec("P")
T = TypeVar("T")
MessageT = TypeVar("MessageT", bound=Message)


class PageAnswer(Protocol):
    """What the answers of all lists have."""

    next_page_token: str


PageT = TypeVar("PageT", bound=PageAnswer)


@dataclass(frozen=True, slots=True)
class Prepared(Generic[T]):
    """One unary call, ready to send. `retry_safe`: a read, or a write that carries a `request_id`."""

    method: str
    request: Message = field(repr=False)  # may hold a license key
    parse: Callable[[bytes], T] = field(repr=False)
    retry_safe: bool
    hot: bool = False
    timeout_s: float | None = None

    def answer(self, raw: bytes) -> T:
        try:
            return self.parse(raw)
        except DecodeError as fault:
            raise Internal(f"the answer to {self.method} is not the message it should be", code="INTERNAL") from fault


@dataclass(frozen=True, slots=True)
class Listing(Generic[PageT, T]):
    """A list: how to ask for the page at a token, and what stands on it."""

    ask: Callable[[str], Prepared[PageT]] = field(repr=False)
    items: Callable[[PageT], Iterable[T]] = field(repr=False)
    start: str = ""


def read(
    method: str,
    request: Message,
    kind: type[MessageT],
    render: Callable[[MessageT], T],
    timeout_s: float | None,
    *,
    hot: bool = False,
) -> Prepared[T]:
    """A call that changes nothing."""
    return Prepared(method, request, lambda raw: render(kind.FromString(raw)), True, hot, timeout_s)


def page(method: str, request: Message, kind: type[MessageT], timeout_s: float | None) -> Prepared[MessageT]:
    """One page of a list, as its message."""
    return Prepared(method, request, kind.FromString, True, False, timeout_s)


def write(method: str, request: Message, kind: type[MessageT], timeout_s: float | None) -> Prepared[MessageT]:
    """A call that changes something; its request carries a `request_id`, so it may be sent again."""
    return Prepared(method, request, kind.FromString, True, False, timeout_s)


_SELF: Final = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)


def dress(method: Callable[..., object], build: Callable[..., object]) -> None:
    """Gives a method made from a request builder the builder's name, documentation and parameters."""
    signature = inspect.signature(build)
    method.__name__, method.__qualname__, method.__doc__ = build.__name__, build.__name__, build.__doc__
    bound = [_SELF, *signature.parameters.values()]
    method.__dict__["__signature__"] = signature.replace(parameters=bound, return_annotation=inspect.Signature.empty)
