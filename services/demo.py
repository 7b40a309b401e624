"""`lictor demo`: walks the flows against a fresh stack of real processes; non-zero on the first difference."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from lictor import Lictor, LictorError

from services.flows import licentric
from services.flows.walk import StepFailedError, Walk
from services.up import EXPECTED, Running, start, start_split
from shared.embedded.places import temporary_state

Flow = Callable[[Walk, Lictor, Lictor, Lictor], None]

FLOWS: Final[Mapping[str, Flow]] = MappingProxyType({"licentric": licentric.run})
"""The flows that can be walked in whole; one is added by what makes it possible."""


def demo(flow: str, *, split: bool) -> int:
    """Walks one flow, or all of them for an empty name. Returns the exit status."""
    if flow and flow not in FLOWS:
        _say(f"lictor demo: no flow {flow!r} yet; there is {', '.join(FLOWS)}")
        return 2
    try:
        with temporary_state() as state_dir, (start_split if split else start)(state_dir, durable=False) as running:
            walk = Walk(_say)
            _processes(walk, running)
            for name, run in FLOWS.items():
                if flow in {"", name}:
                    _say(f"\n{name}")
                    _walk(walk, running, run)
            _say(f"\n{walk.steps} steps, all as promised")
    except StepFailedError as error:
        _say(f"  DIFFERS  {error}")
        return 1
    except (LictorError, *EXPECTED) as error:
        _say(f"lictor demo: {error}")
        return 1
    return 0


def _processes(walk: Walk, running: Running) -> None:
    """Says what serves; with four processes, shows that each serves its own and refuses the others' methods."""
    _say("processes")
    for target, child in running.children.items():
        walk.expect(f"{target}, at {child.listen.api}", "up" if child.process.exit_status() is None else "gone", "up")
        if target in {"all", "license"}:
            continue
        with Lictor(api_key=running.keys.test_api_key, endpoint=child.listen.api) as client:
            walk.refused(f"{target} has none of license's methods", "METHOD_UNKNOWN", client.whoami)


def _walk(walk: Walk, running: Running, run: Flow) -> None:
    licenses, machines = (_endpoint(running, target) for target in ("license", "machine"))
    with (
        Lictor(api_key=running.keys.test_api_key, endpoint=licenses) as test,
        Lictor(api_key=running.keys.live_api_key, endpoint=licenses) as live,
        Lictor(api_key=running.keys.test_api_key, endpoint=machines) as of_machines,
    ):
        run(walk, test, live, of_machines)


def _endpoint(running: Running, target: str) -> str:
    return (running.children.get(target) or running.children["all"]).listen.api


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
