"""Where callers can see which transport serves them. docs/transports.md has the same table, word for word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Side:
    """What one transport does.

    Attributes:
        outcome: What a test sees of it.
        words: What the document says of it.
    """

    outcome: str
    words: str


@dataclass(frozen=True, slots=True)
class Difference:
    """One row of the table."""

    what: str
    grpcio: Side
    envoy: Side

    def on(self, transport: str) -> str:
        """The outcome on a transport."""
        return {"grpcio": self.grpcio, "envoy": self.envoy}[transport].outcome

    @property
    def row(self) -> str:
        return f"| {self.what} | {self.grpcio.words} | {self.envoy.words} |"


RESET: Final = "the stream is reset: INTERNAL at a grpcio client, without details"
LATE: Final = "DEADLINE_EXCEEDED DEADLINE_TOO_SHORT"

DIFFERENCES: Final = {
    "headers_over_16_kib": Difference(
        "headers over 16 KiB",
        Side("INVALID_ARGUMENT METADATA_TOO_LARGE", "INVALID_ARGUMENT, METADATA_TOO_LARGE"),
        Side("RESET", RESET),
    ),
    "more_than_100_headers": Difference("more than 100 headers", Side("OK", "served"), Side("RESET", RESET)),
    "large_message_of_nobody": Difference(
        "a message over 1 MiB without a valid credential",
        Side("UNAUTHENTICATED CREDENTIALS_INVALID", "UNAUTHENTICATED"),
        Side("INVALID_ARGUMENT MESSAGE_TOO_LARGE", "INVALID_ARGUMENT, MESSAGE_TOO_LARGE: its prefix is enough"),
    ),
    "message_over_4_mib": Difference(
        "a message over 4 MiB, also after inflation",
        Side("RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED, without details"),
        Side("INVALID_ARGUMENT MESSAGE_TOO_LARGE", "INVALID_ARGUMENT, MESSAGE_TOO_LARGE"),
    ),
    "deflate": Difference(
        "requests compressed with deflate",
        Side("OK", "served"),
        Side("UNIMPLEMENTED", "UNIMPLEMENTED with `grpc-accept-encoding: identity,gzip`"),
    ),
    "unknown_encoding": Difference(
        "requests in an encoding that gRPC does not know",
        Side("INTERNAL", "INTERNAL"),
        Side("UNIMPLEMENTED", "UNIMPLEMENTED with `grpc-accept-encoding: identity,gzip`"),
    ),
    "two_messages": Difference("a second message in a unary call", Side("OK", "ignored"), Side("INTERNAL", "INTERNAL")),
    "no_message": Difference(
        "a unary call without a message",
        Side("DEADLINE_EXCEEDED", "waits for the deadline, or for ever"),
        Side("INTERNAL", "INTERNAL"),
    ),
    "truncated_message": Difference(
        "a unary request that ends within its message",
        Side("DEADLINE_EXCEEDED", "waits for the deadline, or for ever"),
        Side("INTERNAL", "INTERNAL"),
    ),
    "truncated_stream": Difference(
        "a request stream that ends within a message",
        Side("OK", "served without that message"),
        Side("INTERNAL", "INTERNAL"),
    ),
    "late_request": Difference(
        "a unary request that does not arrive",
        Side("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED at the deadline, without details; waits for ever without one"),
        Side(LATE, "DEADLINE_TOO_SHORT at the deadline, or after 10 s without one"),
    ),
    "no_time_left": Difference(
        "a `grpc-timeout` of 0",
        Side("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED, without details"),
        Side(LATE, "DEADLINE_TOO_SHORT"),
    ),
    "timeout_of_nine_digits": Difference(
        "a `grpc-timeout` of more than eight digits", Side("OK", "served"), Side("INTERNAL", "INTERNAL")
    ),
    "joined_binary_metadata": Difference(
        "values of one `-bin` key joined by a comma", Side("INTERNAL", "INTERNAL"), Side("OK", "taken apart")
    ),
    "content_type": Difference(
        "`content-type` other than `application/grpc` and `+proto`", Side("OK", "served"), Side("HTTP 415", "HTTP 415")
    ),
    "no_te": Difference(
        "no `te: trailers`",
        Side("RESET", RESET),
        Side("INTERNAL", "INTERNAL: pyvoy sends no trailers then"),
    ),
    "method_get": Difference(
        "a method other than POST", Side("RESET", "the stream is reset"), Side("HTTP 405", "HTTP 405")
    ),
    "streams_beyond_the_limit": Difference(
        "streams beyond the 256 that a connection may have at once",
        Side("RESET beside OK", "the stream is refused"),
        Side("NOTHING beside NOTHING", "the connection is closed"),
    ),
    "response_headers": Difference(
        "response headers",
        Side("grpc-accept-encoding", "`grpc-accept-encoding`"),
        Side("date", "`date`"),
    ),
    "cancelled_request_stream": Difference(
        "a cancelled call whose handler waits for the next request",
        Side("over", "the handler may read the end of the stream, as if it were complete"),
        Side("cancelled", "the handler is cancelled"),
    ),
    "cancelled_while_held_back": Difference(
        "a cancelled call whose request stream is held back",
        Side("cancelled", "the handler is cancelled at once"),
        Side("running", "the handler is cancelled when it reads on, or at its deadline"),
    ),
}
"""By the name of the case that shows it."""
