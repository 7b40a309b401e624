"""Processes to hammer, on servers of their own, for as long as the run says.

LICTOR_HAMMER_SEED=7 make test-long ARGS="-k hammer"    chooses as another run did; LICTOR_HAMMER_S is for how long each
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from shared.embedded.postgres import EmbeddedPostgres
from shared.embedded.serving import SERVE
from shared.embedded.valkey import EmbeddedValkey
from shared.rpc.envoy.program import obstacle
from tests.consistency.fleet import Fleet, fleet
from tests.consistency.hammer import Tally
from tests.helpers.embedded import state_directory

SEED: Final = int(os.environ.get("LICTOR_HAMMER_SEED", time.time_ns() % 1_000_000))
FOR_S: Final = float(os.environ.get("LICTOR_HAMMER_S", "20"))
BOTH: Final = ("grpcio", "grpcio" if obstacle() else "envoy", "grpcio")
LITTLE: Final = "20000"
"""Bytes of memory for facts: some twenty, so that much is asked of Valkey."""


@asynccontextmanager
async def staged(
    folder: Path, transports: Sequence[str] = BOTH, *, with_valkey: bool = False, without: str = "", workloads: int = 0
) -> AsyncGenerator[Fleet]:
    """Three processes, `without` a safeguard or as they are, and so many `workloads` with certificates. `with_valkey` they have
    next to no memory of their own."""
    command = (sys.executable, "-m", "tests.consistency.spoiled", without) if without else SERVE
    with ExitStack() as stack:
        state = stack.enter_context(state_directory())
        postgres = stack.enter_context(EmbeddedPostgres(state, durable=False))
        valkey = stack.enter_context(EmbeddedValkey(state)) if with_valkey else None
        more = {"facts_memory_bytes": LITTLE} if with_valkey else {}
        async with fleet(
            postgres, folder, transports, [command] * len(transports), valkey, workloads=workloads, **more
        ) as running:
            yield running


def tell(name: str, tally: Tally, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for whoever runs the tests, and how often what was refused where the test fails."""
    with capsys.disabled():
        print(f"\nhammer {name}, LICTOR_HAMMER_SEED={SEED}: {tally.in_words()}")
    print("\n".join(f"{number:7} {what}" for what, number in tally.refusals.most_common()))
