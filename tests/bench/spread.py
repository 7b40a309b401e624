"""Load that is spread over many requests, where h2load sends the same one again and again.

    python -m tests.bench.spread

As a program it sends what one line of JSON on its standard input says (see `_Order`) and answers with another: the seconds that
it took, and what each call took. It knows no answer but that it came; so it is only for servers that keep a count of their own.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Final, cast
from urllib.parse import urlsplit

import uvloop

from tests.bench.frames import Answers, BrokenError, Calls, opening
from tests.bench.load import WITHIN_S, Load, NotRunError, Run
from tests.helpers.embedded import TREE

_PREFIX_BYTES: Final = 5


@dataclass(frozen=True, slots=True)
class _Order:
    url: str
    headers: dict[str, str]
    bodies: str
    connections: int
    streams: int
    calls: int
    in_order: bool


async def run_spread(load: Load, calls: int) -> Run:
    """Sends `calls` calls from a process of its own, each request chosen at random, every one as likely as any other; or each
    once, where the load says `in_order`. It tells latencies where there is one call in flight on each connection.

    Raises:
        NotRunError: A call was not answered, it took too long, or there are fewer requests than calls in order.
    """
    [bodies] = load.bodies
    order = _Order(load.url, load.headers(), str(bodies), load.connections, load.streams, calls, load.in_order)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.spread",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=TREE,
        env={**os.environ, "PYTHONPATH": f"{TREE}:{TREE / 'clients' / 'python'}"},
    )  # fmt: skip
    try:
        output, _ = await asyncio.wait_for(process.communicate(json.dumps(asdict(order)).encode()), WITHIN_S)
    except TimeoutError:
        raise NotRunError(f"{calls} calls did not end within {WITHIN_S:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    said = output.decode(errors="replace").strip()
    if process.returncode:
        raise NotRunError(f"{calls} calls: {said[-300:]}")
    told = json.loads(said)
    return Run(calls, told["seconds"], tuple(told["latencies_us"]))


def read_bodies(raw: bytes) -> list[bytes]:
    """The framed messages of a file, each with its frame."""
    found: list[bytes] = []
    at = 0
    while at < len(raw):
        after = at + _PREFIX_BYTES + int.from_bytes(raw[at + 1 : at + _PREFIX_BYTES])
        found.append(raw[at:after])
        at = after
    return found


class _Caller(asyncio.Protocol):
    """One connection with so many calls in flight until there are no more to make."""

    def __init__(self, headers: dict[str, str], bodies: Iterator[bytes], streams: int) -> None:
        loop = asyncio.get_running_loop()
        self.begun, self.done = loop.create_future(), loop.create_future()
        self._calls, self._answers = Calls(headers), Answers()
        self._bodies = bodies
        self._room = streams
        self._in_flight = 0
        self._sent_at = 0.0
        self.latencies_us: list[int] = []
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(opening())

    def data_received(self, data: bytes) -> None:
        try:
            ended = self._answers.feed(data)
        except BrokenError as error:
            self._fail(str(error))
            return
        if self._answers.begun and not self.begun.done():
            self.begun.set_result(None)
        if ended and self._room == 1:  # of several in flight nobody here knows which one it was
            self.latencies_us.append(round((perf_counter() - self._sent_at) * 1e6))
        self._in_flight -= ended
        self._send(ended)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the server closed the connection: {exc}")

    def start(self) -> None:
        """Makes the first calls."""
        self._send(self._room)

    def close(self) -> None:
        """Hangs up."""
        if self._transport is not None:
            self._transport.close()

    def _send(self, room: int) -> None:
        made = [self._calls.next(body) for body in islice(self._bodies, room)]
        self._in_flight += len(made)
        if out := self._answers.replies() + b"".join(made):
            assert self._transport is not None
            self._sent_at = perf_counter() if made else self._sent_at
            self._transport.write(out)
        if self._in_flight == 0 and room and not self.done.done():
            self.done.set_result(None)

    def _fail(self, why: str) -> None:
        for future in (self.begun, self.done):
            if not future.done():
                future.set_exception(BrokenError(why))


async def _send(order: _Order, bodies: Sequence[bytes]) -> dict[str, object]:
    """The seconds from the first call to the last answer, and what each took where that is known, in rising order; connections
    are made before."""
    url = urlsplit(order.url)
    assert url.hostname is not None and url.port is not None
    headers = {":path": url.path, ":authority": url.netloc, **order.headers}
    if order.in_order and len(bodies) < order.calls:
        raise BrokenError(f"there are {len(bodies)} requests for {order.calls} calls")
    chosen = iter(bodies[: order.calls] if order.in_order else random.choices(bodies, k=order.calls))
    callers: list[_Caller] = []
    loop = asyncio.get_running_loop()
    for _ in range(min(order.connections, order.calls)):
        caller = _Caller(headers, chosen, order.streams)
        await loop.create_connection(lambda made=caller: made, url.hostname, url.port)
        callers.append(caller)
    await asyncio.gather(*(caller.begun for caller in callers))
    start = perf_counter()
    for caller in callers:
        caller.start()
    await asyncio.gather(*(caller.done for caller in callers))
    seconds = perf_counter() - start
    for caller in callers:
        caller.close()
    return {"seconds": seconds, "latencies_us": sorted(us for caller in callers for us in caller.latencies_us)}


def main() -> int:
    """As a program; the status is not 0 when a call was not answered."""
    order = _Order(**json.load(sys.stdin))
    try:
        print(json.dumps(uvloop.run(_send(order, read_bodies(Path(order.bodies).read_bytes())))))
    except (BrokenError, OSError) as error:
        print(f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
