"""`activate`: machines that take a seat, each of a license of its own, and what Postgres alone takes for the same statements."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from uuid import uuid4

from lictor.common.v1.common_pb2 import LicenseSelector, MachineIdentity
from lictor.machine.v1.activation_service_pb2 import ActivateMachineRequest, ActivateMachineResponse
from lictor.machine.v1.machine_pb2 import Platform

from shared.db.roles import Role
from shared.ids import Prefix
from tests.bench import processes
from tests.bench.licensed import TIMEOUT_S, Licensed, licensed
from tests.bench.load import Load, NotRunError, Run, framed
from tests.bench.pgbench import WARM_UP, program, run_pgbench
from tests.bench.populate import Issued, populate
from tests.bench.replay import Statement, numbered, script, traced
from tests.bench.report import Bound, Figure, Goal, information
from tests.bench.subjects import Counted, Effort, Sample, Subject, measure, must_answer

GOAL: Final = Goal("activate", Bound.MIN, 0.25, 0.5, "calls/s")
GOALS: Final = (GOAL,)
CALLERS: Final = 32
LICENSES: Final = 24_000
WARM_UP_CALLS: Final = 320
LEAST_EACH: Final = 20
"""Transactions of each client in a round."""
SERVICE: Final = "lictor.machine.v1.ActivationService"
METHOD: Final = "ActivateMachine"
_MACHINES: Final = "SELECT count(*) FROM machine.machine"


async def run_activate(effort: Effort) -> list[Figure]:
    """Activations and pgbench in turn, on the same Postgres; whoever is not asked stands still."""
    program()
    ours: list[Sample] = []
    bare: list[Run] = []
    postgres_us: list[float] = []
    with TemporaryDirectory() as name:
        async with licensed(Path(name), LICENSES) as suite:
            seats = Seats(suite)
            await seats.activate(WARM_UP_CALLS)  # every connection has asked what it asks but once
            replay = await Replay.of(seats, effort)
            calls = effort.calls or round((await seats.activate(WARM_UP_CALLS)).run.rate * effort.seconds)
            calls = max(CALLERS, min(calls, seats.left // effort.rounds - WARM_UP_CALLS))
            for _ in range(effort.rounds):
                async with stopped(suite.served.process.pid):
                    bare.append(await replay.round())
                await seats.activate(WARM_UP_CALLS)  # the first after a while know nothing of what has happened
                before = seats.postgres_cpu_s()
                ours.append(await seats.activate(calls))
                postgres_us.append((seats.postgres_cpu_s() - before) / calls * 1e6)
    figures = [Figure(GOAL, [one.run.rate for one in ours], [one.rate for one in bare])]
    for share, what in ((0.5, "p50"), (0.99, "p99")):
        values, baselines = [one.run.percentile_ms(share) for one in ours], [one.percentile_ms(share) for one in bare]
        figures.append(Figure(information(f"activate_{what}", Bound.MAX, "ms"), values, baselines))
    told = information("activate_cpu", Bound.MAX, "us of CPU a call")
    figures.append(Figure(told, [one.cpu_us for one in ours], postgres_us))
    told = information("activate_statements", Bound.MAX, "a call")  # BEGIN and COMMIT are two of them
    return [*figures, Figure(told, [float(len(replay.statements))], [1.0])]


@dataclass
class Seats:
    """Licenses that have had no machine, to be taken one after the other."""

    suite: Licensed
    taken: int = 0

    @property
    def left(self) -> int:
        return len(self.suite.issued) - self.taken

    def requests(self, number: int) -> list[bytes]:
        """As many activations, each of a license that has had none."""
        licenses = self.suite.issued[self.taken : self.taken + number]
        if len(licenses) < number:
            raise NotRunError(f"of {len(self.suite.issued)} licenses fewer than {number} are left without a machine")
        self.taken += number
        return [activation(one) for one in licenses]

    async def activate(self, calls: int) -> Sample:
        """A round. NotRunError where not each of its calls made a machine."""
        served = self.suite.served
        file = self.suite.folder / "activations"
        file.write_bytes(b"".join(map(framed, self.requests(calls))))
        url = f"http://{served.listen.api}/{SERVICE}/{METHOD}"
        load = Load(url, [file], self.suite.authorization, TIMEOUT_S, CALLERS, 1, spread=True, in_order=True)
        subject = Subject(GOAL.name, served.process.pid, load, Counted(served.listen, SERVICE, METHOD))
        async with self.making(calls):
            return await measure(subject, calls)

    @asynccontextmanager
    async def making(self, number: int) -> AsyncGenerator[None]:
        """NotRunError where the block makes more or fewer machines."""
        async with self.suite.served.suite.admin() as admin:
            before = await admin.fetchval(_MACHINES)
            yield
            made = await admin.fetchval(_MACHINES) - before
        if made != number:
            raise NotRunError(f"{number} activations made {made} machines")

    def postgres_cpu_s(self) -> float:
        """Processor time of Postgres so far, of what of it runs now."""
        found = 0.0
        for pid in processes.family(self.suite.postgres.pid):
            with suppress(OSError):  # one that has just ended
                found += processes.cpu_s([pid])
        return found

    async def one(self) -> str:
        """One activation, by a client that reads the answer; the id of the license."""
        license_id = self.suite.issued[self.taken].license_id
        [message] = self.requests(1)
        raw = await must_answer(self.suite.served.listen.api, f"/{SERVICE}/{METHOD}", message, self.suite.authorization)
        made = ActivateMachineResponse.FromString(raw)
        if made.already_active or made.machine.license_id != license_id:
            raise NotRunError(f"a first activation answers {made}")
        return license_id


@dataclass
class Replay:
    """The same statements by pgbench, for licenses of its own, which are like the others."""

    seats: Seats
    statements: Sequence[Statement]
    file: Path
    like: str
    """The license of the activation that was watched."""
    each: int = LEAST_EACH
    done: int = 0
    """Transactions of each client so far."""
    issued: int = 0
    """Licenses for each client."""

    @classmethod
    async def of(cls, seats: Seats, effort: Effort) -> Replay:
        """Watches an activation, and finds out how many of them make a round."""
        suite = seats.suite
        async with suite.served.suite.admin() as admin:

            async def call() -> None:
                await seats.one()

            log, has = suite.postgres.log, "INSERT INTO machine.machine"
            found = await traced(admin, log, Role.MACHINE.value, has, call)
            file = suite.folder / "activations.sql"
            file.write_text(await script(admin, found))
        replay = cls(seats, found, file, like=license_of(found))
        warm = await replay.round()
        each = effort.calls or warm.rate * effort.seconds
        replay.each = max(LEAST_EACH, round(each / CALLERS))
        await replay.issue(effort.rounds * (WARM_UP + replay.each))
        return replay

    async def issue(self, more: int) -> None:
        """Licenses for so many more transactions of each client."""
        suite, first = self.seats.suite, self.issued + 1
        names = [numbered(self.like, client, n) for client in range(CALLERS) for n in range(first, first + more)]
        async with suite.served.suite.admin() as admin:
            await populate(admin, suite.template, suite.hasher, len(names), names)
        self.issued += more

    async def round(self) -> Run:
        """NotRunError where not each transaction made a machine."""
        times = WARM_UP + self.each
        if self.issued < self.done + times:
            await self.issue(self.done + times - self.issued)
        async with self.seats.making(CALLERS * times):
            run = await run_pgbench(
                self.file, self.seats.suite.postgres.socket_dir, Role.MACHINE.value,
                clients=CALLERS, each=self.each, after=self.done,
            )  # fmt: skip
        self.done += times
        return run


def license_of(statements: Sequence[Statement]) -> str:
    """The id of the license that an activation was of."""
    values = (value or "" for one in statements for value in one.values.values())
    return next(value for value in values if value.startswith(Prefix.LICENSE.value + "_"))


def activation(license_: Issued) -> bytes:
    """A machine's first activation, by a server that knows the license by its id."""
    return ActivateMachineRequest(
        request_id=str(uuid4()),
        license=LicenseSelector(license_id=license_.license_id),
        identity=MachineIdentity(fingerprint=f"fingerprint of {license_.license_id}"),
        display_name="A desk",
        hostname="desk.example.com",
        platform=Platform.LINUX,
    ).SerializeToString()


@asynccontextmanager
async def stopped(pid: int) -> AsyncGenerator[None]:
    """A process and all that descend from it stand still while the block runs: what they would do meanwhile is no baseline."""
    pids = list(processes.family(pid))
    for one in pids:
        os.kill(one, signal.SIGSTOP)
    try:
        yield
    finally:
        for one in pids:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGCONT)
