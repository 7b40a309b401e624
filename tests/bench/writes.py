"""A background of writes at a steady rate, from a process of its own.

    python -m tests.bench.writes

Its standard input is one line of JSON (see `_Order`) and then nothing until it ends, which ends the writes. It answers
with one line: how many writes were answered, how many failed, the first failure, and the seconds that it wrote for.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import count, cycle
from typing import Final

from lictor import AsyncLictor, LictorError

from tests.bench.load import NotRunError
from tests.helpers.embedded import TREE

MAX_IN_FLIGHT: Final = 128
"""Pairs of writes. Beyond it the rate is not kept, and the report says so."""
ENDS_WITHIN_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class _Order:
    endpoint: str
    api_key: str
    license_ids: Sequence[str]
    per_second: float


@dataclass(slots=True)
class Written:
    """What a background has done by its end."""

    answered: int = 0
    failed: int = 0
    failure: str = ""
    """The first one."""
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Writes a second."""
        return self.answered / self.seconds if self.seconds else 0.0


@asynccontextmanager
async def background(
    endpoint: str, api_key: str, license_ids: Sequence[str], per_second: float
) -> AsyncGenerator[Written]:
    """Suspends and reinstates one license after the other while the block runs; tells by its end what came of it.

    Raises:
        NotRunError: A write failed, or the process did.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.writes",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=TREE,
        env={**os.environ, "PYTHONPATH": f"{TREE}:{TREE / 'clients' / 'python'}"},
    )  # fmt: skip
    assert process.stdin is not None
    written = Written()
    try:
        order = _Order(endpoint, api_key, license_ids, per_second)
        process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
        yield written
        process.stdin.close()
        output, _ = await asyncio.wait_for(process.communicate(), ENDS_WITHIN_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise NotRunError(f"the background of writes ended with status {process.returncode}")
    for name, value in json.loads(output).items():
        setattr(written, name, value)
    if written.failed:
        raise NotRunError(f"{written.failed} writes of the background failed, the first with {written.failure}")


async def _write(order: _Order, over: asyncio.Event) -> Written:
    """Writes until it is over, then lets what is in flight end."""
    written = Written()
    loop = asyncio.get_running_loop()
    pairs: set[asyncio.Task[None]] = set()
    async with AsyncLictor(api_key=order.api_key, endpoint=order.endpoint) as client:

        async def pair(license_id: str) -> None:
            try:
                await client.licenses.suspend(license_id)
                written.answered += 1
                await client.licenses.reinstate(license_id)
                written.answered += 1
            except LictorError as error:
                written.failed += 1
                written.failure = written.failure or f"{type(error).__name__}: {error}"

        start = loop.time()
        for number, license_id in zip(count(1), cycle(order.license_ids), strict=False):
            if len(pairs) < MAX_IN_FLIGHT:
                task = asyncio.create_task(pair(license_id))
                pairs.add(task)
                task.add_done_callback(pairs.discard)
            due_s = start + number * 2 / order.per_second - loop.time()
            try:
                await asyncio.wait_for(over.wait(), max(due_s, 0.0))
                break
            except TimeoutError:
                continue
        written.seconds = loop.time() - start
        if pairs:
            await asyncio.wait(tuple(pairs))
    return written


async def _main() -> None:
    order = _Order(**json.loads(await asyncio.to_thread(sys.stdin.readline)))
    over = asyncio.Event()
    reading = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    reading.add_done_callback(lambda _: over.set())
    print(json.dumps(asdict(await _write(order, over))), flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
