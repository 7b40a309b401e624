"""What is measured: servers in processes of their own, the calls that are sent to them, and what those cost."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import grpc.aio
from prometheus_client.parser import text_string_to_metric_families

from shared.embedded.ports import Listen, free_listen
from shared.embedded.process import GuardedProcess, log_tail
from shared.rpc.envoy.program import obstacle
from tests.bench import processes
from tests.bench.empty_service import METHOD, SERVICE
from tests.bench.load import Load, NotRunError, Run, run
from tests.bench.spread import read_bodies, run_spread
from tests.helpers.echo import as_is
from tests.helpers.serving import launch, ops_get

ANSWERS_WITHIN_S: Final = 30.0
WARM_UP_CALLS: Final = 2000
ALONE_SHARE: Final = 0.5
"""Of the time of a round, for calls one at a time."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Where a server counts its own answers."""

    listen: Listen
    service: str
    method: str

    async def outcomes(self) -> Counter[str]:
        """How many calls have ended so far, by code and reason."""
        status, text = await ops_get(self.listen, "/metrics")
        if status != 200:
            raise NotRunError(f"/metrics of {self.listen.api} answers {status}")
        found: Counter[str] = Counter()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                of = sample.labels
                if sample.name == "lictor_calls_total" and (of["service"], of["method"]) == (self.service, self.method):
                    found[f"{of['code']} {of['reason']}".strip()] += int(sample.value)
        return found


@dataclass(frozen=True, slots=True)
class Subject:
    """A running server and the load for it.

    Attributes:
        name: What it is called in the report.
        pid: Its process; those that descend from it count as well.
        load: What it is sent.
        counted: Where its own count must agree with the calls sent; None where it keeps none.
        warm_up_calls: So many come first, and no round has fewer. For calls that are small; large ones need fewer.
    """

    name: str
    pid: int
    load: Load
    counted: Counted | None = None
    warm_up_calls: int = WARM_UP_CALLS


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one subject."""

    run: Run
    cpu_us: float
    """Processor time per call of all the server's processes."""


def rates(samples: Sequence[Sample]) -> list[float]:
    """Calls a second, round by round."""
    return [sample.run.rate for sample in samples]


def percentiles_ms(samples: Sequence[Sample], share: float) -> list[float]:
    """The latency that `share` (0 to 1) of the calls did not exceed, round by round."""
    return [sample.run.percentile_ms(share) for sample in samples]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: rounds of about `seconds` each, or of so many `calls`."""

    rounds: int = 5
    seconds: float = 2.0
    calls: int | None = None


async def interleaved(
    subjects: Sequence[Subject], effort: Effort, *, latencies: bool = False
) -> dict[str, list[Sample]]:
    """Measures the subjects one after the other, round by round, after a warm-up; the samples by the subject's name.

    Raises:
        NotRunError: Calls were lost, or a server's own count says that not all were answered OK.
    """
    calls = {subject.name: await calls_of(subject, effort) for subject in subjects}
    found: dict[str, list[Sample]] = {subject.name: [] for subject in subjects}
    for _ in range(effort.rounds):
        for subject in subjects:
            found[subject.name].append(await measure(subject, calls[subject.name], latencies=latencies))
    return found


async def calls_of(subject: Subject, effort: Effort) -> int:
    """How many calls make a round of this subject. Finding out warms it up."""
    least = effort.calls or subject.warm_up_calls
    await _send(subject.load, least, latencies=False)  # not counted: connections are made, and some calls wait for it
    if effort.calls is not None:
        return least
    warm = await measure(subject, least)
    return max(least, round(warm.run.rate * effort.seconds))


async def _send(load: Load, calls: int, *, latencies: bool) -> Run:
    if load.spread:
        assert not latencies or load.streams == 1, "it keeps none"
        return await run_spread(load, calls)
    return await run(load, calls, latencies=latencies)


async def one_at_a_time(subjects: Sequence[Subject], effort: Effort) -> dict[str, list[Sample]]:
    """As `interleaved`, with latencies and one call in flight, for less long: a latency settles sooner than a rate."""
    alone = [replace(subject, load=replace(subject.load, connections=1, streams=1)) for subject in subjects]
    return await interleaved(alone, replace(effort, seconds=effort.seconds * ALONE_SHARE), latencies=True)


async def measure(subject: Subject, calls: int, *, latencies: bool = False) -> Sample:
    """One round. NotRunError as in `interleaved`."""
    pids = processes.family(subject.pid)
    counted = subject.counted
    before = await counted.outcomes() if counted is not None else Counter[str]()
    cpu_before = processes.cpu_s(pids)
    done = await _send(subject.load, calls, latencies=latencies)
    cpu_s = max(processes.cpu_s(pids) - cpu_before, processes.STEP_S)
    if counted is not None:
        outcomes = await counted.outcomes() - before
        if outcomes != {"OK": done.calls}:
            said = ", ".join(f"{count} {how}" for how, count in outcomes.items())
            raise NotRunError(f"{subject.name}: {done.calls} calls were sent, and the server counted {said or 'none'}")
    return Sample(done, cpu_s / done.calls * 1e6)


async def must_answer(address: str, path: str, message: bytes, authorization: str) -> bytes:
    """What a grpcio client reads: h2load takes any HTTP 200 for a success. NotRunError when it is no answer."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(path, request_serializer=as_is, response_deserializer=as_is)
        try:
            return await call(
                message,
                timeout=ANSWERS_WITHIN_S,
                wait_for_ready=True,
                metadata=grpc.aio.Metadata(("authorization", authorization)),
            )
        except grpc.aio.AioRpcError as error:
            raise NotRunError(f"{path} answers {error.code().name}: {error.details()}") from None


@asynccontextmanager
async def empty_server(name: str, arguments: Sequence[str], folder: Path, load: Load) -> AsyncGenerator[Subject]:
    """One of the empty servers, `python -m` with `arguments`, that is sent `load` wherever that would go to."""
    chained = arguments[0] == "tests.bench.empty_service"
    if "grpcio" not in " ".join(arguments) and (why := obstacle()) is not None:
        raise NotRunError(f"Envoy cannot host Python here: {why}")
    listen = free_listen("127.0.0.1")
    server = launch(folder, listen, {}, (sys.executable, "-m", *arguments))
    path = f"/{SERVICE}/{METHOD}"
    try:
        first, *_ = read_bodies(load.bodies[0].read_bytes())
        await _answers(server, listen, path, first[5:], load.authorization)
        here = replace(load, url=f"http://{listen.api}{path}")
        yield Subject(name, server.pid, here, Counted(listen, SERVICE, METHOD) if chained else None)
    finally:
        await asyncio.to_thread(server.stop)


async def _answers(server: GuardedProcess, listen: Listen, path: str, message: bytes, authorization: str) -> None:
    """Waits for the first answer. NotRunError when the server ends, or stays silent."""

    async def ended() -> None:
        while server.exit_status() is None:  # noqa: ASYNC110 - its guard can only be asked
            await asyncio.sleep(0.05)

    answer = asyncio.create_task(must_answer(listen.api, path, message, authorization))
    end = asyncio.create_task(ended())
    try:
        await asyncio.wait({answer, end}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise NotRunError(f"a server ended by itself: {log_tail(server.log)}")
        answer.result()
    finally:
        answer.cancel()
        end.cancel()
        await asyncio.wait({answer, end})
