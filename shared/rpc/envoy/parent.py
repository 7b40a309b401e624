"""The process that starts Envoy, watches over it, and makes it leave in order.

SIGTERM -> the inside says NOT_SERVING and waits out the lame duck -> it asks for the listener to be closed
-> calls in flight end -> it says that it has left -> Envoy quits
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

import aiohttp

from shared.observe.logging import get_logger
from shared.rpc.envoy.bootstrap import ADMIN_SOCKET, API, EnvoySettings, write_bootstrap
from shared.rpc.envoy.control import CONTROL_FD, CONTROL_FOLDER, Control, Word
from shared.rpc.envoy.json_listener import JSON
from shared.rpc.envoy.program import EnvoyError, command, environment
from shared.rpc.envoy.tls import renewing
from shared.rpc.ops import split_address

LISTENING_WITHIN_S: Final = 60.0
POLL_S: Final = 0.02
ADMIN_WITHIN_S: Final = 5.0
QUIT_WITHIN_S: Final = 10.0
LAST_WORDS_S: Final = 1.0
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_log = get_logger(__name__)


async def run_envoy(settings: EnvoySettings, leave_within_s: float) -> None:
    """Runs Envoy with the application until SIGTERM or SIGINT, then lets it leave in order. A second signal hurries it.

    Args:
        settings: What Envoy is told.
        leave_within_s: How long leaving may take; an Envoy that is still there is killed.

    Raises:
        EnvoyError: Envoy or the application inside did not start, or ended by itself.
        OSError: The address cannot be bound.
        TlsError: The files of the certificate cannot be used.
    """
    for address in filter(None, (settings.api_addr, settings.json_addr)):
        _refuse_busy(address)
    with tempfile.TemporaryDirectory(prefix="lictor-") as name:  # 0700
        folder = Path(name)
        write_bootstrap(folder, settings)
        async with (
            renewing(folder, settings.tls),
            _started(folder) as (process, control),
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(folder / ADMIN_SOCKET)),
                timeout=aiohttp.ClientTimeout(total=ADMIN_WITHIN_S),
            ) as admin,
        ):
            await _Envoy(process, control, admin, leave_within_s).run()


class _Envoy:
    """One running Envoy."""

    def __init__(self, process: Process, control: Control, admin: aiohttp.ClientSession, leave_within_s: float) -> None:
        self._process = process
        self._control = control
        self._admin = admin
        self._leave_within_s = leave_within_s
        self._listening = False
        self._left = False
        self._why = ""
        self._deadline: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        announcing, listening = asyncio.create_task(self._announce()), asyncio.create_task(self._listen())
        try:
            with self._signals():
                status = await self._process.wait()
                await asyncio.wait({listening}, timeout=LAST_WORDS_S)
        finally:
            announcing.cancel()
            listening.cancel()
            await asyncio.wait({announcing, listening})
            if self._deadline is not None:
                self._deadline.cancel()
        if not self._left:
            raise EnvoyError(self._why or f"Envoy ended by itself with status {status}")

    @contextmanager
    def _signals(self) -> Generator[None]:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        if not self._listening:  # nothing is in flight, and nobody inside may be there yet to hear a word
            self._left = True
            self._process.terminate()
            self._kill_after(QUIT_WITHIN_S)
            return
        self._control.say(Word.STOP)
        if self._deadline is None:
            self._kill_after(self._leave_within_s)

    def _kill_after(self, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(seconds, self._kill, seconds)

    def _kill(self, within_s: float) -> None:
        _log.error("Envoy did not end in time and is killed", within_s=within_s)
        self._why = self._why or f"Envoy did not end within {within_s:.0f} s and was killed"
        self._left = False
        with suppress(ProcessLookupError):
            self._process.kill()

    async def _announce(self) -> None:
        """Tells the inside once Envoy listens."""
        try:
            async with asyncio.timeout(LISTENING_WITHIN_S):
                while (ports := await self._ports()) is None:  # noqa: ASYNC110 - Envoy can only be asked
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            self._why = f"Envoy did not listen within {LISTENING_WITHIN_S:.0f} s"
            self._kill(LISTENING_WITHIN_S)
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

    async def _listen(self) -> None:
        while (heard := await self._control.hear()) is not None:
            word, more = heard
            if word is Word.DRAIN:
                # Draining makes the next answer on a connection send it away; closing the listener takes no new ones.
                await self._post("drain_listeners?graceful&skip_exit")
                await self._post("drain_listeners")
            elif word in (Word.LEFT, Word.FAILED):
                self._left, self._why = word is Word.LEFT, more
                self._kill_after(QUIT_WITHIN_S)
                await self._quit()

    async def _quit(self) -> None:
        if not await self._post("quitquitquit"):
            with suppress(ProcessLookupError):
                self._process.terminate()  # it fails before its admin interface is there

    async def _post(self, path: str) -> bool:
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with self._admin.post(f"http://envoy/{path}") as answer:
                return answer.status == 200
        return False


@asynccontextmanager
async def _started(folder: Path) -> AsyncGenerator[tuple[Process, Control]]:
    """Envoy and the way to talk to its inside; Envoy is gone when the block ends."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = await asyncio.create_subprocess_exec(
            *command(folder),
            env={**environment(), CONTROL_FD: str(theirs.fileno()), CONTROL_FOLDER: str(folder)},
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,  # Ctrl-C at the terminal is for this process: Envoy would end at once
        )
    _log.info("Envoy started", pid=process.pid)
    control = await Control.over(ours)
    try:
        yield process, control
    finally:
        control.close()
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), QUIT_WITHIN_S)
            except TimeoutError:
                process.kill()
                await process.wait()


def _refuse_busy(address: str) -> None:
    """Raises OSError when the address cannot be bound: clearer, and sooner, than Envoy's own lines."""
    host, port = split_address(address)
    if port == 0:
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OSError(error.errno, f"{address}: {os.strerror(error.errno or 0)}") from None
