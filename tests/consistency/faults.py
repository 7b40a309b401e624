"""What goes wrong while the processes are hammered. Each goes on until `stop` is set, and mends what it broke."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

import asyncpg

from tests.consistency.fleet import Server, family, signal_all
from tests.consistency.scene import Scene
from tests.helpers.embedded import kill
from tests.helpers.standby import standby_of


async def goes_on(stop: asyncio.Event, for_s: float) -> bool:
    """Waits so long; false when it is to stop."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), for_s)
    return not stop.is_set()


async def kill_processes(scene: Scene, stop: asyncio.Event) -> None:
    """kill -9 of one process after the other; each is started again."""
    while await goes_on(stop, scene.random.uniform(0.5, 2)):
        server = scene.random.choice(scene.fleet.servers)
        await server.kill()
        await goes_on(stop, scene.random.uniform(0, 1))
        await server.start()


async def pause_processes(scene: Scene, stop: asyncio.Event) -> None:
    """SIGSTOP of one process or two, for less than the lease and for much more."""
    while await goes_on(stop, scene.random.uniform(0.2, 1)):
        servers = scene.random.sample(list(scene.fleet.servers), scene.random.choice((1, 1, 2)))
        for server in servers:
            server.pause()
        await goes_on(stop, scene.lease_s * scene.random.choice((0.3, 0.9, 1.1, 2, 6)))
        for server in servers:
            server.resume()


async def lose_connections(scene: Scene, stop: asyncio.Event) -> None:
    """The record ends connections, of one process or of all."""
    conn = await asyncpg.connect(scene.fleet.admin_dsn)
    try:
        while await goes_on(stop, scene.random.uniform(0.05, 0.6)):
            await conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'lictor%' AND random() < $1",
                scene.random.choice((0.1, 0.5, 1.0)),
            )
    finally:
        await conn.close()


async def kill_backends(scene: Scene, stop: asyncio.Event) -> None:
    """kill -9 of a backend: Postgres ends all others too, and recovers as from a crash, with a new epoch."""
    while await goes_on(stop, scene.random.uniform(1, 4)):
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            conn = await asyncpg.connect(scene.fleet.admin_dsn)
            try:
                pid = await conn.fetchval(
                    "SELECT pid FROM pg_stat_activity WHERE usename LIKE 'lictor%' ORDER BY random() LIMIT 1"
                )
            finally:
                conn.terminate()
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


async def crash_postgres(scene: Scene, stop: asyncio.Event) -> None:
    """The whole server dies and comes back: what an immediate shutdown is, and kill -9."""
    while await goes_on(stop, scene.random.uniform(2, 5)):
        postgres = scene.fleet.postgres
        if scene.random.random() < 0.5:
            os.kill(postgres.pid, signal.SIGQUIT)
        else:
            await asyncio.to_thread(kill, postgres)
        await goes_on(stop, scene.random.uniform(0, 1))
        await asyncio.to_thread(postgres.restart)


async def bad_links(scene: Scene, stop: asyncio.Event) -> None:
    """Links to the record that are slow, stand still, lose connections, or are cut: one by one, and for a while."""

    def slow(server: Server) -> None:
        server.link.delay_s = scene.lease_s * scene.random.choice((0.1, 0.3, 0.6, 1.2))

    breaks: tuple[Callable[[Server], None], ...] = (
        slow, lambda server: server.link.freeze(), lambda server: server.link.drop(), lambda server: server.link.cut(),
    )  # fmt: skip

    async def of(server: Server) -> None:
        while await goes_on(stop, scene.random.uniform(0.2, 1.5)):
            scene.random.choice(breaks)(server)
            await goes_on(stop, scene.lease_s * scene.random.choice((0.3, 1, 2, 5)))
            server.link.heal()

    await asyncio.gather(*(of(server) for server in scene.fleet.servers))


async def everything(scene: Scene, stop: asyncio.Event) -> None:
    """All of these at once, but for those that take the record from everybody."""
    work: tuple[Callable[[Scene, asyncio.Event], Awaitable[None]], ...] = (pause_processes, lose_connections, bad_links)
    await asyncio.gather(*(fault(scene, stop) for fault in work))


async def promote(scene: Scene, stop: asyncio.Event) -> None:
    """The record's server dies, and a synchronous standby takes its place: every write that was answered is in it."""
    async with standby_of(scene.fleet.postgres) as standby:
        await goes_on(stop, 4)
        # All of it at once, as a machine dies. The server of a dead postmaster shows commits that no standby has for a moment.
        old = family(scene.fleet.postgres.pid)
        signal_all(old, signal.SIGSTOP)
        signal_all(old, signal.SIGKILL)
        for server in scene.fleet.servers:  # some come before it takes writes
            server.link.target = standby.socket_dir
            await goes_on(stop, scene.random.uniform(0, 1))
        await standby.promote()
        await scene.over.wait()
