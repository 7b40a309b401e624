"""The demo walks real processes, whole and split, and does not pass over a difference."""

from __future__ import annotations

import subprocess
import sys

import pytest
from lictor import NotFound

from services.flows.walk import StepFailedError, Walk


def _demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "services.cli", "demo", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=50)


def test_the_licentric_flow_goes_as_promised() -> None:
    done = _demo("--flow", "licentric")
    assert (done.returncode, "steps, all as promised" in done.stdout) == (0, True), done.stdout + done.stderr


def test_it_goes_the_same_with_four_processes_and_four_roles() -> None:
    done = _demo("--split")
    assert (done.returncode, "steps, all as promised" in done.stdout) == (0, True), done.stdout + done.stderr
    for target in ("license", "entitlement", "machine", "webhook"):
        assert f"ok  {target}, at 127.0.0.1:" in done.stdout


def test_a_flow_that_is_not_there_is_refused_by_name() -> None:
    done = _demo("--flow", "paygentic")
    assert (done.returncode, "no flow 'paygentic' yet" in done.stdout) == (2, True)


def test_a_step_that_differs_stops_the_walk() -> None:
    said: list[str] = []
    walk = Walk(said.append)
    with pytest.raises(StepFailedError, match="promised 'VALID', saw 'EXPIRED'"):
        walk.expect("the key validates", "EXPIRED", "VALID")
    assert (walk.steps, said) == (0, [])


def test_a_step_that_is_not_refused_or_for_another_reason_stops_the_walk() -> None:
    def refuse() -> None:
        raise NotFound("no license", code="NOT_FOUND", reason="LICENSE_NOT_FOUND")

    walk = Walk(lambda line: None)
    with pytest.raises(StepFailedError, match="was answered"):
        walk.refused("suspend it", "STATE_TRANSITION_INVALID", object)
    with pytest.raises(StepFailedError, match="LICENSE_NOT_FOUND"):
        walk.refused("suspend it", "STATE_TRANSITION_INVALID", refuse)
