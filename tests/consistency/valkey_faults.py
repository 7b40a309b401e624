"""What goes wrong with the store of facts beside the record while the processes are hammered."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Final

from shared.embedded.valkey import SOCKET_NAME, EmbeddedValkey
from shared.freshness.sealed_entry import BODY_AT
from tests.consistency.faults import goes_on, kill_processes
from tests.consistency.hammer import Fault
from tests.consistency.scene import Scene
from tests.helpers.embedded import kill
from tests.helpers.resp import Redis, redis_at

KEPT_S: Final = "900"


def valkey_of(scene: Scene) -> EmbeddedValkey:
    assert scene.fleet.valkey is not None
    return scene.fleet.valkey


async def _dies(scene: Scene, stop: asyncio.Event) -> None:
    valkey = valkey_of(scene)
    while await goes_on(stop, scene.random.uniform(1, 3)):
        await asyncio.to_thread(kill, valkey)
        await goes_on(stop, scene.random.uniform(0, 1))
        await asyncio.to_thread(valkey.restart)


async def _freezes(scene: Scene, stop: asyncio.Event) -> None:
    valkey = valkey_of(scene)
    while await goes_on(stop, scene.random.uniform(0.5, 2)):
        os.kill(valkey.pid, signal.SIGSTOP)
        await goes_on(stop, scene.random.choice((0.02, 0.2, 1.5)))
        os.kill(valkey.pid, signal.SIGCONT)


async def _is_emptied(scene: Scene, redis: Redis, held: dict[bytes, bytes]) -> None:
    del scene, held
    await redis.do("FLUSHALL")


async def _is_set_back(scene: Scene, redis: Redis, held: dict[bytes, bytes]) -> None:
    """All that it ever held for a name may be there again: the first of it, or something of some seconds ago."""
    again: list[tuple[bytes | str, ...]] = []
    for name, value in (await redis.everything()).items():
        if name in held:
            again.append(("SET", name, held[name], "EX", KEPT_S))
        if name not in held or scene.random.random() < 0.2:
            held[name] = value
    await redis.do_all(again)


def as_if_new(first: bytes, newest: bytes) -> bytes:
    """The facts of the first of two entries under the stamp of the newest: that its seal is wrong is all that is to be seen."""
    # Bytes of the seal may be line breaks.
    stamp, facts = newest[BODY_AT:].partition(b"\n")[0], first[BODY_AT:].partition(b"\n")[2]
    return newest[:BODY_AT] + stamp + b"\n" + facts


async def _is_forged(scene: Scene, redis: Redis, held: dict[bytes, bytes]) -> None:
    """Bytes that are changed, cut off, moved to another name, of another kind, and the first facts as if just read."""
    there = [(name, value) for name, value in (await redis.everything()).items() if value]
    for name, value in there:
        held.setdefault(name, value)
    # All at once: what is put there after the processes have put something newer bears a stamp that they do not take.
    changes: list[tuple[bytes | str, ...]] = []
    for name, value in scene.random.sample(there, len(there) // 2):
        place = scene.random.randrange(len(value))
        flipped = value[:place] + bytes([value[place] ^ (1 << scene.random.randrange(8))]) + value[place + 1 :]
        other = scene.random.choice(there)[1]
        garbled = (flipped, value[:place], value + b"x", other, other, scene.random.randbytes(200), b"")
        forged = as_if_new(held[name], value) if scene.random.random() < 0.5 else scene.random.choice(garbled)
        if scene.random.random() < 0.1:
            # A process may write the name at any moment: what is of another kind takes its place in one step.
            changes += [("LPUSH", "of_another_kind", value), ("RENAME", "of_another_kind", name)]
        else:
            changes.append(("SET", name, forged, "EX", KEPT_S))
    await redis.do_all(changes)


def again_and_again(act: Callable[[Scene, Redis, dict[bytes, bytes]], Awaitable[None]]) -> Callable[
    [Scene, asyncio.Event], Awaitable[None]
]:  # fmt: skip
    """The same act every now and then. Processes are killed meanwhile: one that has just started has nothing of its own."""

    async def fault(scene: Scene, stop: asyncio.Event) -> None:
        held: dict[bytes, bytes] = {}
        async with redis_at(valkey_of(scene).socket_dir / SOCKET_NAME) as redis:
            await redis.do("FLUSHALL")  # of an account that was hammered before nothing is asked any more
            killing = asyncio.create_task(kill_processes(scene, stop))
            while await goes_on(stop, scene.random.uniform(0.05, 0.5)):
                await act(scene, redis, held)
            await killing

    return fault


VALKEY_FAULTS: Final[dict[str, Fault]] = {
    "valkey_dies": _dies,
    "valkey_freezes": _freezes,
    "valkey_is_emptied": again_and_again(_is_emptied),
    "valkey_is_set_back": again_and_again(_is_set_back),
    "valkey_is_forged": again_and_again(_is_forged),
}
