"""A stream of licenses: what to ask with, what a message tells, and when to go on after a failure. No I/O."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.message import DecodeError

from lictor.common.v1.common_pb2 import View
from lictor.license.v1 import validation_service_pb2 as pb

from .convert import enum_name, enum_value, several
from .errors import Internal, LictorError
from .validation_result import ValidationResult, verdict

METHOD: Final = "/lictor.license.v1.ValidationService/WatchLicenses"
GIVE_UP_S: Final = 60.0
BACKOFF_FIRST_S: Final = 0.05
BACKOFF_MOST_S: Final = 5.0

_draw: Final = random.SystemRandom().uniform


@dataclass(frozen=True, slots=True)
class LicenseChange:
    """One step of a stream.

    `kind` is one of these; a newer one reads `UNKNOWN_7`, and can be left alone.

    - `SNAPSHOT_BEGUN`: what is not named again by the next `SNAPSHOT_COMPLETE` is gone. A stream may begin anew at any time.
    - `SNAPSHOT`, `DELTA`: `result` is how the license stands.
    - `SNAPSHOT_COMPLETE`: all licenses were told of.
    - `DELETED`: the license is gone, or meets the filters no more; you may never have heard of it.
    - `BOOKMARK`: all that happened until now was told.
    """

    kind: str
    license_id: str = ""
    result: ValidationResult | None = None
    resume_token: str = field(default="", repr=False)
    """Where `watch(resume_token=...)` goes on; with `SNAPSHOT_COMPLETE` and `BOOKMARK`."""


class Watching:
    """One `watch()`: it outlives the streams that it is told by."""

    def __init__(
        self,
        request: pb.WatchLicensesRequest,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[float, float], float] = _draw,
    ) -> None:
        self._request = request
        self._clock = clock
        self._draw = draw
        self._failures = 0
        self._failing_since: float | None = None

    def body(self) -> bytes:
        """What the next stream is asked with."""
        return self._request.SerializeToString()

    def changes(self, raw: bytes) -> Iterator[LicenseChange]:
        """What a message tells."""
        try:
            message = pb.WatchLicensesResponse.FromString(raw)
        except DecodeError as fault:
            raise Internal(f"an answer to {METHOD} is not the message it should be", code="INTERNAL") from fault
        self._failures, self._failing_since = 0, None
        kind = enum_name(pb.WatchLicensesResponse.Kind, message.kind)
        for answer in message.licenses:
            yield LicenseChange(kind, answer.license_id, verdict(answer))
        for license_id in message.deleted_license_ids:
            yield LicenseChange(kind, license_id)
        if message.kind == pb.WatchLicensesResponse.SNAPSHOT_BEGUN:
            self._request.resume_token = ""
        if message.resume_token:
            self._request.resume_token = message.resume_token
        if not message.licenses and not message.deleted_license_ids:
            yield LicenseChange(kind, resume_token=message.resume_token)

    def wait_s(self, error: LictorError | None) -> float:
        """How long to wait before the next stream; raises `error` where there is none. None is a stream that has ended."""
        now = self._clock()
        if error is not None and error.reason == "RESYNC_REQUIRED" and self._request.resume_token:
            self._request.resume_token = ""
            return 0.0
        if error is not None and not is_of_the_connection(error):
            raise error
        if self._failing_since is None:
            self._failing_since = now
        elif now - self._failing_since > GIVE_UP_S and error is not None:
            raise error
        self._failures += 1
        ceiling = min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2 ** min(self._failures, 10))
        return max((error.retry_after_s if error else None) or 0.0, self._draw(BACKOFF_FIRST_S / 2, ceiling))


def is_of_the_connection(error: LictorError) -> bool:
    """Whether another connection may do better. A proxy on the way has other codes for one that breaks, and no reason."""
    return error.code == "UNAVAILABLE" or (not error.reason and error.code in {"CANCELLED", "INTERNAL", "UNKNOWN"})


def watch_licenses(
    *,
    product_id: str = "",
    policy_id: str = "",
    license_ids: Iterable[str] = (),
    view: str | View.Kind.ValueType | None = None,
    resume_token: str = "",
) -> Watching:
    """Iterates over how licenses stand and over each change of that, for ever; every license without a filter.

    It goes on by itself where a process leaves or the connection is lost, gives up after a minute without an answer, and
    begins anew with a snapshot where it cannot go on. An error is raised when the credential ends, and (`ResourceExhausted`)
    when you read too slowly. `view="BASIC"` brings the licenses along. Close the iterator when you are done.
    """
    request = pb.WatchLicensesRequest(
        product_id=product_id,
        policy_id=policy_id,
        license_ids=several(license_ids),
        view=enum_value(View.Kind, view),
        resume_token=resume_token,
    )
    return Watching(request)
