"""One timer looks after all calls that take long."""

from __future__ import annotations

import asyncio

from shared.rpc.envoy.watch import Watch


class Seen:
    def __init__(self, watch: Watch, again_s: float | None = None) -> None:
        self.watch, self.again_s = watch, again_s
        self.looks = 0
        self.looked = asyncio.Event()

    def look(self) -> None:
        self.looks += 1
        self.looked.set()
        if self.again_s is not None:
            self.watch.add(self, self.again_s)


async def test_each_is_looked_at_when_it_is_due() -> None:
    watch = Watch()
    loop = asyncio.get_running_loop()
    soon, later, never = Seen(watch), Seen(watch), Seen(watch)
    begun = loop.time()
    watch.add(later, 0.2)
    watch.add(soon, 0.01)
    watch.add(never, 0.05)
    watch.discard(never)
    async with asyncio.timeout(5):
        await soon.looked.wait()
        assert later.looks == 0
        await later.looked.wait()
    assert loop.time() - begun >= 0.2
    assert (soon.looks, later.looks, never.looks) == (1, 1, 0)


async def test_one_that_adds_itself_is_looked_at_again() -> None:
    watch = Watch()
    again = Seen(watch, 0.01)
    watch.add(again, 0.0)
    async with asyncio.timeout(5):
        while again.looks < 3:
            again.looked.clear()
            await again.looked.wait()
    watch.discard(again)


async def test_it_wakes_up_again_after_a_quiet_time() -> None:
    watch = Watch()
    for _ in range(2):
        seen = Seen(watch)
        watch.add(seen, 0.0)
        async with asyncio.timeout(5):
            await seen.looked.wait()
