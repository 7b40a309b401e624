"""A background of writes at a steady rate, from a process of its own.

    python -m tests.bench.writes

Its standard input is one line of JSON (see `_Order`) and then nothing until it ends, which ends the writes. It answers
with one line: how many writes were made, how many failed, the first failure, and the seconds that it wrote for.

The writes go straight to Postgres, as those of other processes come to one that validates: it reads of each, and what it
would cost to be called for them is not measured along.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import count, cycle
from typing import Final

import asyncpg

from shared.tenancy import Mode
from tests.bench.load import NotRunError
from tests.bench.report import Bound, Figure, Goal
from tests.helpers.embedded import TREE

WRITES_PER_S: Final = 200.0
CONNECTIONS: Final = 8
"""Each commit waits for the disk. Where so many are not enough the rate is not kept, and the report says so."""
ENDS_WITHIN_S: Final = 30.0
_WRITE: Final = """
    UPDATE license.license SET display_name = $4, revision = revision + 1, updated_at = clock_timestamp()
     WHERE account_id = $1 AND mode = $2 AND license_id = $3
"""


@dataclass(frozen=True, slots=True)
class _Order:
    dsn: str
    account_id: str
    license_ids: Sequence[str]
    per_second: float


@dataclass(slots=True)
class Written:
    """What a background has done by its end."""

    made: int = 0
    failed: int = 0
    failure: str = ""
    """The first one."""
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Writes a second."""
        return self.made / self.seconds if self.seconds else 0.0


def writes_of(entry: str) -> Goal:
    """The figure of an entry that says how much of its background was reached: with less, the others would be others."""
    return Goal(f"{entry}_writes", Bound.MIN, 0.9, None, "writes/s")


def reached(entry: str, *written: Written) -> Figure:
    """That figure, of all that wrote at the same time."""
    return Figure(writes_of(entry), [sum(one.rate for one in written)], [WRITES_PER_S])


@asynccontextmanager
async def background(
    dsn: str, account_id: str, license_ids: Sequence[str], per_second: float
) -> AsyncGenerator[Written]:
    """Renames one license after the other while the block runs; tells by its end what came of it.

    `dsn` is a superuser's.

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
        order = _Order(dsn, account_id, license_ids, per_second)
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
    writes: set[asyncio.Task[None]] = set()
    async with AsyncExitStack() as stack:
        # No pool: what it asks Postgres after each use would be as much as the write.
        free = [await asyncpg.connect(order.dsn) for _ in range(CONNECTIONS)]
        for conn in free:
            stack.push_async_callback(conn.close)

        async def write(license_id: str, display_name: str) -> None:
            conn = free.pop()
            try:
                done = await conn.execute(_WRITE, order.account_id, Mode.TEST.value, license_id, display_name)
                if done != "UPDATE 1":
                    raise LookupError(f"{done}: no such license")
                written.made += 1
            except (OSError, LookupError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                written.failed += 1
                written.failure = written.failure or f"{type(error).__name__}: {error}"
            finally:
                free.append(conn)

        start = loop.time()
        for number, license_id in zip(count(1), cycle(order.license_ids), strict=False):
            if len(writes) < CONNECTIONS:
                task = asyncio.create_task(write(license_id, f"Write {number}"))
                writes.add(task)
                task.add_done_callback(writes.discard)
            due_s = start + number / order.per_second - loop.time()
            try:
                await asyncio.wait_for(over.wait(), max(due_s, 0.0))
                break
            except TimeoutError:
                continue
        written.seconds = loop.time() - start
        if writes:
            await asyncio.wait(tuple(writes))
    return written


async def _main() -> None:
    order = _Order(**json.loads(await asyncio.to_thread(sys.stdin.readline)))
    over = asyncio.Event()
    reading = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    reading.add_done_callback(lambda _: over.set())
    print(json.dumps(asdict(await _write(order, over))), flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
