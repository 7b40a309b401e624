"""The process that starts Envoy, watches over it, and makes it leave in order.

SIGTERM -> the inside says NOT_SERVING and waits out the lame duck -> it asks for connections to be sent away
-> their last calls end, they close -> the inside says that it has left -> Envoy quits
"""

from __future__ import annotations

import asyncio
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import aiohttp

from shared.rpc.addresses import refuse_busy
from shared.rpc.child import Child, started
from shared.rpc.control import CONTROL_FOLDER, Control, Word
from shared.rpc.envoy.bootstrap import ADMIN_SOCKET, API, EnvoySettings, mark_leaving, write_bootstrap
from shared.rpc.envoy.json_listener import JSON
from shared.rpc.envoy.program import EnvoyError, command, environment
from shared.rpc.envoy.tls import renewing
from shared.rpc.signals import signals

LISTENING_WITHIN_S: Final = 60.0
POLL_S: Final = 0.02
ADMIN_WITHIN_S: Final = 5.0
_CONNECTIONS: Final = "/stats?filter=^http\\..*\\.downstream_cx_active$"


async def run_envoy(settings: EnvoySettings, leave_within_s: float) -> None:
    """Runs Envoy with the application until SIGTERM or SIGINT, then lets it leave in order. A second signal hurries it.

    Args:
        settings: What Envoy is told.
        leave_within_s: How long leaving may take; an Envoy that is still there is killed.

    Raises:
        ChildError: Envoy or the application inside did not start, or ended by itself.
        OSError: The address cannot be bound.
        TlsError: The files of the certificate cannot be used.
    """
    for address in filter(None, (settings.api_addr, settings.json_addr)):
        refuse_busy(address)
    running: list[EnvoyChild] = []
    asked: list[None] = []

    def stop() -> None:
        asked.append(None)
        for child in running:
            child.stop()

    with signals(stop):  # from before it is started: what is asked meanwhile is not lost
        async with envoy(settings, leave_within_s) as child:
            running.append(child)
            for _ in asked:
                child.stop()
            await child.run()


@asynccontextmanager
async def envoy(
    settings: EnvoySettings, leave_within_s: float, inside: Mapping[str, str] | None = None
) -> AsyncGenerator[EnvoyChild]:
    """An Envoy to be run; `inside` are environment variables for the application."""
    with tempfile.TemporaryDirectory(prefix="lictor-", ignore_cleanup_errors=True) as name:  # 0700
        folder = Path(name)
        write_bootstrap(folder, settings)
        variables = {**environment(), CONTROL_FOLDER: str(folder), **(inside or {})}
        async with (
            renewing(folder, settings.tls),
            started(command(folder), variables, EnvoyChild.name) as (process, control),
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(folder / ADMIN_SOCKET)),
                timeout=aiohttp.ClientTimeout(total=ADMIN_WITHIN_S),
            ) as admin,
        ):
            yield EnvoyChild(process, control, leave_within_s, folder, admin)


class EnvoyChild(Child):
    """One running Envoy with the application inside."""

    name = "Envoy"
    error = EnvoyError

    def __init__(
        self, process: Process, control: Control, leave_within_s: float, folder: Path, admin: aiohttp.ClientSession
    ) -> None:
        super().__init__(process, control, leave_within_s)
        self._folder = folder
        self._admin = admin
        self._listening = False
        self._sending_away: asyncio.Task[None] | None = None

    async def run(self) -> None:
        announcing = asyncio.create_task(self._announce())
        try:
            await super().run()
        finally:
            tasks = {task for task in (announcing, self._sending_away) if task is not None}
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _hears(self) -> bool:
        return self._listening

    async def _announce(self) -> None:
        """Tells the inside once Envoy listens."""
        try:
            async with asyncio.timeout(LISTENING_WITHIN_S):
                while (ports := await self._ports()) is None:  # noqa: ASYNC110 - Envoy can only be asked
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            self.kill(f"did not listen within {LISTENING_WITHIN_S:.0f} s")
            return
        self._listening = True
        self._control.say(Word.LISTENING, " ".join(map(str, ports)))

    async def _ports(self) -> list[int] | None:
        """Where Envoy takes calls, and then where it takes JSON if it does; None until it listens."""
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with self._admin.get("http://envoy/ready") as ready:
                if ready.status != 200:
                    return None
            async with self._admin.get("http://envoy/listeners?format=json") as listeners:
                bound = {
                    listener["name"]: int(listener["local_address"]["socket_address"]["port_value"])
                    for listener in (await listeners.json(content_type=None))["listener_statuses"]
                }
                return [bound[name] for name in (API, JSON) if name in bound] or None
        return None

    async def _heard(self, word: Word) -> None:
        if word is Word.DRAIN:
            self._sending_away = asyncio.create_task(self._send_away())
        elif word in (Word.LEFT, Word.FAILED):
            await self._quit()

    async def _send_away(self) -> None:
        """Takes no new connections, sends those that are there away, and tells the inside when they are gone."""
        await self._post("drain_listeners")
        mark_leaving(self._folder)
        while await self._connections() != 0:  # noqa: ASYNC110 - Envoy can only be asked
            await asyncio.sleep(POLL_S)
        self._control.say(Word.GONE)

    async def _connections(self) -> int | None:
        """How many there are on the listeners; None when Envoy does not say."""
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with self._admin.get("http://envoy" + _CONNECTIONS) as answer:
                counts = dict(line.split(": ") for line in (await answer.text()).splitlines())
            return sum(int(count) for name, count in counts.items() if not name.startswith("http.admin."))
        return None

    async def _quit(self) -> None:
        if not await self._post("quitquitquit"):
            with suppress(ProcessLookupError):
                self._process.terminate()  # it fails before its admin interface is there

    async def _post(self, path: str) -> bool:
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with self._admin.post(f"http://envoy/{path}") as answer:
                return answer.status == 200
        return False
