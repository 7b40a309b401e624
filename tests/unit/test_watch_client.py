"""What the client makes of a stream of licenses, and when it goes on after a failure."""

from __future__ import annotations

import pytest
from lictor import Internal, LicenseChange, LictorError, ResourceExhausted, Unauthenticated, Unavailable
from lictor._core.requests_watch import BACKOFF_MOST_S, GIVE_UP_S, Watching, watch_licenses
from lictor.common.v1.common_pb2 import View
from lictor.license.v1.validation_service_pb2 import (
    ValidateLicenseResponse,
    ValidationCode,
    WatchLicensesRequest,
    WatchLicensesResponse,
)

Kind = WatchLicensesResponse.Kind
AWAY = Unavailable("away", code="UNAVAILABLE")
RESYNC = LictorError("old", code="OUT_OF_RANGE", reason="RESYNC_REQUIRED")


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def new(time: Time | None = None, token: str = "") -> Watching:
    return Watching(WatchLicensesRequest(resume_token=token), clock=time or Time(), draw=lambda low, high: high)


def tell(watching: Watching, **fields: object) -> list[LicenseChange]:
    return list(watching.changes(WatchLicensesResponse(**fields).SerializeToString()))  # pyright: ignore[reportArgumentType]


def token_of(watching: Watching) -> str:
    return WatchLicensesRequest.FromString(watching.body()).resume_token


def test_what_is_asked() -> None:
    asked = watch_licenses(product_id="p", policy_id="q", license_ids=["a"], view="BASIC", resume_token="t")
    assert WatchLicensesRequest.FromString(asked.body()) == WatchLicensesRequest(
        product_id="p",
        policy_id="q",
        license_ids=["a"],
        view=View.BASIC,
        resume_token="t",
    )
    with pytest.raises(TypeError):
        watch_licenses(license_ids="lic_1")


def test_a_message_tells_of_each_license() -> None:
    answers = [ValidateLicenseResponse(license_id=one, valid=True, code=ValidationCode.VALID) for one in "ab"]
    told = tell(new(), kind=Kind.SNAPSHOT, licenses=answers)
    assert [(one.kind, one.license_id) for one in told] == [("SNAPSHOT", "a"), ("SNAPSHOT", "b")]
    assert all(one.result is not None and one.result.valid for one in told)
    assert tell(new(), kind=Kind.DELETED, deleted_license_ids=["c"]) == [LicenseChange("DELETED", "c")]
    assert tell(new(), kind=Kind.BOOKMARK, resume_token="t") == [LicenseChange("BOOKMARK", resume_token="t")]
    assert tell(new(), kind=77) == [LicenseChange("UNKNOWN_77")]
    with pytest.raises(Internal):
        list(new().changes(b"\xff"))


def test_the_next_stream_goes_on_from_the_last_token_and_a_broken_snapshot_begins_anew() -> None:
    watching = new()
    tell(watching, kind=Kind.SNAPSHOT_COMPLETE, resume_token="1")
    assert token_of(watching) == "1"
    tell(watching, kind=Kind.DELTA)
    tell(watching, kind=Kind.BOOKMARK, resume_token="2")
    assert token_of(watching) == "2"
    tell(watching, kind=Kind.SNAPSHOT_BEGUN)
    assert token_of(watching) == ""


def test_a_token_that_is_too_old_begins_anew_once() -> None:
    watching = new(token="old")
    assert watching.wait_s(RESYNC) == 0.0
    assert token_of(watching) == ""
    with pytest.raises(LictorError, match="RESYNC_REQUIRED"):
        watching.wait_s(RESYNC)


@pytest.mark.parametrize(
    "error",
    [
        Unauthenticated("ended", code="UNAUTHENTICATED", reason="CREDENTIALS_INVALID"),
        ResourceExhausted("slow", code="RESOURCE_EXHAUSTED", reason="OVERLOADED", retry_after_s=5.0),
        Internal("fault", code="INTERNAL", reason="INTERNAL_FAULT"),
    ],
)
def test_other_errors_are_the_callers(error: LictorError) -> None:
    with pytest.raises(type(error)):
        new().wait_s(error)


def test_it_waits_longer_each_time_until_something_is_told_and_gives_up_after_a_minute_without() -> None:
    time = Time()
    watching = new(time)
    waits = [watching.wait_s(AWAY) for _ in range(10)]
    assert waits == sorted(waits)
    assert waits[-1] == BACKOFF_MOST_S
    tell(watching, kind=Kind.BOOKMARK)
    assert watching.wait_s(AWAY) == waits[0]
    time.now += GIVE_UP_S
    watching.wait_s(AWAY)
    time.now += 1
    with pytest.raises(Unavailable):
        watching.wait_s(AWAY)


def test_it_waits_as_long_as_the_server_says() -> None:
    assert new().wait_s(Unavailable("away", code="UNAVAILABLE", retry_after_s=9.0)) == 9.0
