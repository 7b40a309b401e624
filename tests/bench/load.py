"""Load: calls of one method, as fast as its server answers, with so many in flight. Mostly it is h2load that sends it."""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROGRAM: Final = "h2load"
WITHIN_S: Final = 180.0
"""A run that takes longer is stopped."""
_FINISHED: Final = re.compile(r"^finished in ([0-9.]+)(us|ms|s|m|h)\b", re.MULTILINE)
_REQUESTS: Final = re.compile(
    r"^requests: (\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout",
    re.MULTILINE,
)
_STATUSES: Final = re.compile(r"^status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", re.MULTILINE)
_UNITS_S: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class NotRunError(Exception):
    """A measurement could not be made; the message is for whoever asked for it."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent.

    Attributes:
        url: The method, `http://host:port/package.Service/Method`.
        bodies: Files with one framed request each. Several are in flight at the same time, so h2load, which takes one,
            is started several times.
        authorization: The value of that header.
        timeout_s: What the caller allows each call; None leaves it to the server.
        connections: How many there are at a time.
        streams: Calls in flight on each of them.
        spread: Whether there is one file, with many framed requests, and each call sends any of them (see `spread`).
        in_order: Whether each of those is sent once instead, in their order.
    """

    url: str
    bodies: Sequence[Path]
    authorization: str
    timeout_s: int | None = None
    connections: int = 4
    streams: int = 16
    spread: bool = False
    in_order: bool = False

    def headers(self) -> dict[str, str]:
        """What every call says of itself."""
        limit = {} if self.timeout_s is None else {"grpc-timeout": f"{self.timeout_s}S"}
        return {"content-type": "application/grpc", "te": "trailers", "authorization": self.authorization, **limit}


@dataclass(frozen=True, slots=True)
class Run:
    """What became of a number of calls. Each of them was answered, with a status of HTTP that is fine."""

    calls: int
    seconds: float
    latencies_us: tuple[int, ...] = ()
    """Of each call, in rising order; empty unless asked for."""

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.calls / self.seconds

    def percentile_ms(self, share: float) -> float:
        """The latency, in ms, that `share` (0 to 1) of the calls did not exceed."""
        return self.latencies_us[min(int(share * len(self.latencies_us)), len(self.latencies_us) - 1)] / 1000


def framed(message: bytes) -> bytes:
    """A gRPC message as it stands in the body of a request."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def program() -> str:
    """NotRunError where h2load is not installed."""
    found = shutil.which(PROGRAM)
    if found is None:
        raise NotRunError("h2load is not installed (on Debian and Ubuntu: apt-get install nghttp2-client)")
    return found


async def run(load: Load, calls: int, *, latencies: bool = False) -> Run:
    """Sends `calls` calls, shared out over the files.

    Files that cannot be in flight at the same time, because there are more of them than connections, follow in waves.

    Raises:
        NotRunError: h2load is not there, did not end, or a call was not answered.
    """
    at_once = min(load.connections, len(load.bodies))
    each = max(1, round(calls / len(load.bodies)))
    waves: list[Run] = []
    for start in range(0, len(load.bodies), at_once):
        files = load.bodies[start : start + at_once]
        runs = await asyncio.gather(*(_one(load, file, load.connections // at_once, each, latencies) for file in files))
        # They begin together, so the wave lasts as long as its longest.
        waves.append(Run(sum(one.calls for one in runs), max(one.seconds for one in runs), _merged(runs)))
    return Run(sum(wave.calls for wave in waves), sum(wave.seconds for wave in waves), _merged(waves))


def _merged(runs: Sequence[Run]) -> tuple[int, ...]:
    return tuple(sorted(us for one in runs for us in one.latencies_us))


async def _one(load: Load, body: Path, connections: int, calls: int, latencies: bool) -> Run:
    command = [
        program(),
        "-n",
        str(calls),
        "-c",
        str(min(connections, calls)),
        "-m",
        str(load.streams),
        "-d",
        str(body),
    ]
    for name, value in load.headers().items():
        command += ["-H", f"{name}: {value}"]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "calls"
        if latencies:
            command += [f"--log-file={log}"]
        process = await asyncio.create_subprocess_exec(
            *command, load.url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), WITHIN_S)
        except TimeoutError:
            raise NotRunError(f"h2load did not end within {WITHIN_S:.0f} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        seconds = read_output(output.decode(errors="replace"), calls)
        return Run(calls, seconds, read_log(log.read_text(), calls) if latencies else ())


def read_output(text: str, sent: int) -> float:
    """The seconds that h2load says its calls took.

    Raises:
        NotRunError: Not all of the `sent` calls were made and answered with a 2xx, or the text is not h2load's.
    """
    finished, requests, statuses = _FINISHED.search(text), _REQUESTS.search(text), _STATUSES.search(text)
    if finished is None or requests is None or statuses is None:
        raise NotRunError(f"h2load said something else than expected: {' '.join(text.split())[-300:]}")
    seconds = float(finished[1]) * _UNITS_S[finished[2]]
    _total, _started, done, succeeded, failed, errored, timeout = map(int, requests.groups())
    fine, *others = map(int, statuses.groups())
    if not (sent == done == succeeded == fine) or failed or errored or timeout or any(others):
        raise NotRunError(f"{sent} calls were sent, but {requests[0]}; {statuses[0]}")
    if seconds <= 0:
        raise NotRunError(f"h2load measured no time: {finished[0]}")
    return seconds


def read_log(text: str, sent: int) -> tuple[int, ...]:
    """The latencies, in us and in rising order, of h2load's log: start, HTTP status and duration of a call in each line.

    Raises:
        NotRunError: A call is missing, or was not answered.
    """
    rows = [line.split("\t") for line in text.splitlines()]
    fine = sorted(int(row[2]) for row in rows if len(row) >= 3 and row[1] == "200")
    if len(fine) != sent:
        raise NotRunError(f"{sent} calls were sent, but h2load's log has {len(fine)} answers of {len(rows)}")
    return tuple(fine)
