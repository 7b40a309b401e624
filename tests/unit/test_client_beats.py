"""When a client sends the next heartbeat, and which refusal ends them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from lictor import LictorError
from lictor._core.requests_beats import FIRST_RETRY_S, WITHOUT_INTERVAL_S, beats, process
from lictor.machine.v1.activation_service_pb2 import (
    HeartbeatMachineResponse,
    HeartbeatProcessRequest,
    HeartbeatProcessResponse,
)


def answered(interval_s: float | None) -> HeartbeatMachineResponse:
    answer = HeartbeatMachineResponse()
    if interval_s is not None:
        answer.heartbeat.interval.FromTimedelta(timedelta(seconds=interval_s))
    return answer


@pytest.mark.parametrize(("interval_s", "meant_s"), [(60.0, 60.0), (86_400.0, 86_400.0), (None, WITHOUT_INTERVAL_S)])
def test_two_heartbeats_fit_into_an_interval_as_the_policy_has_it_by_now(
    interval_s: float | None, meant_s: float
) -> None:
    beating = beats("mach_1")
    for _ in range(50):
        assert 0.4 * meant_s <= beating.answered(answered(interval_s)) <= 0.6 * meant_s


@pytest.mark.parametrize("code", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED"])
def test_what_passes_is_tried_again_before_the_machine_is_dead(code: str) -> None:
    beating = beats("mach_1")
    beating.answered(answered(60.0))
    waits = [beating.failed(LictorError("not now", code=code, reason="OVERLOADED")) for _ in range(20)]
    assert beating.failures == 20
    assert max(waits) <= 60.0 / 4
    assert min(waits) >= FIRST_RETRY_S / 2
    beating.answered(answered(60.0))
    assert beating.failures == 0


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("FAILED_PRECONDITION", "HEARTBEAT_DEAD"),
        ("NOT_FOUND", "MACHINE_NOT_FOUND"),
        ("PERMISSION_DENIED", "CALLER_NOT_ALLOWED"),
        ("UNAUTHENTICATED", "CREDENTIAL_INVALID"),
    ],
)
def test_what_does_not_pass_ends_them(code: str, reason: str) -> None:
    with pytest.raises(LictorError) as caught:
        beats("mach_1").failed(LictorError("no", code=code, reason=reason))
    assert caught.value.reason == reason


def test_a_process_beats_as_its_machine_does_and_ends_once() -> None:
    running = process("mach_1", "p", machine_secret="ms_1")
    answer = HeartbeatProcessResponse()
    answer.process.heartbeat_interval.FromTimedelta(timedelta(minutes=10))
    assert 240.0 <= running.answered(answer) <= 360.0
    assert running.end is not None
    asked = [running.call().request, running.end().request]
    assert asked == [
        HeartbeatProcessRequest(machine_id="mach_1", machine_secret="ms_1", name="p", ended=ended)
        for ended in (False, True)
    ]
    assert beats("mach_1").end is None
