"""A crowd at the five seats of a license, over four processes: five find one, whatever is killed meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final
from uuid import uuid4

import asyncpg
import grpc.aio
import pytest
import pytest_asyncio
from lictor.common.v1.common_pb2 import LicenseSelector, MachineIdentity
from lictor.machine.v1 import activation_service_pb2_grpc as activation_grpc
from lictor.machine.v1.activation_service_pb2 import ActivateMachineRequest

from shared.embedded.ports import Listen, free_listen
from shared.embedded.postgres import EmbeddedPostgres
from shared.embedded.process import GuardedProcess
from shared.rpc.status import DETAILS_KEY
from tests.helpers.builders import Shop, open_shop
from tests.helpers.echo import refusal
from tests.helpers.serving import Served, ended, launch, serving, settled
from tests.helpers.suite import World, bearer

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

PROCESSES: Final = 4
CROWD: Final = 64
SEATS: Final = 5
ROUNDS: Final = 50  # in each scope
KILLS: Final = 24
SCOPES: Final = ("LICENSE", "POLICY", "PRODUCT", "ACCOUNT")
FULL: Final = "MACHINE_LIMIT_EXCEEDED"
LOST: Final = "no answer"
TRY_AGAIN: Final = {LOST, "DUPLICATE_IN_FLIGHT", "TRANSACTION_CONFLICT"}  # no last word


@dataclass
class Member:
    """A `lictor serve` of the machine service alone. Its address stays when it is killed and started again."""

    folder: Path
    environment: dict[str, str] = field(repr=False)
    listen: Listen
    process: GuardedProcess
    stub: activation_grpc.ActivationServiceAsyncStub

    async def ready(self) -> None:
        assert await settled(self.process, self.listen), self.process.log.read_text()

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)

    async def stop(self) -> None:
        await asyncio.to_thread(self.process.stop)

    async def start_again(self) -> None:
        """Once it has ended; ready in the end."""
        await ended(self.process)
        await self.stop()
        self.process = launch(self.folder, self.listen, self.environment)
        await self.ready()

    async def ask(self, request: ActivateMachineRequest, api_key: str) -> str:
        """The id of the machine that has a seat by this call; the reason of a refusal; LOST where the process did not answer."""
        try:
            answer = await self.stub.ActivateMachine(request, timeout=30, metadata=bearer(api_key))
        except grpc.aio.AioRpcError as error:
            told = DETAILS_KEY in dict(error.trailing_metadata() or ())
            return refusal(error).reason if told else LOST
        assert not answer.already_active, "each of the crowd has a fingerprint of its own"
        return answer.machine.machine_id


@dataclass(frozen=True)
class Site:
    """Four processes that activate, and one that does the rest."""

    rest: Served
    members: Sequence[Member]


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="site")
async def _site(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Site]:
    folder = tmp_path_factory.mktemp("races")
    async with AsyncExitStack() as stack:
        rest = await stack.enter_async_context(serving(postgres, folder, "grpcio"))
        environment = {
            "LICTOR_TARGET": "machine",
            "LICTOR_TRANSPORT": "grpcio",
            "LICTOR_POSTGRES_DSN": postgres.dsn(),
            "LICTOR_ROOT_SECRET_FILE": str(rest.suite.settings.root_secret_file),
            "LICTOR_LICENSE_ADDR": rest.listen.api,
            "LICTOR_LAME_DUCK_S": "0",
            "LICTOR_LOG_FORMAT": "text",
            "LICTOR_MACHINE_SWEEP_INTERVAL_S": "86400",
        }
        members: list[Member] = []
        for _ in range(PROCESSES):
            listen = free_listen("127.0.0.1")
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(listen.api))
            stub = activation_grpc.ActivationServiceStub(channel)
            member = Member(folder, environment, listen, launch(folder, listen, environment), stub)
            stack.push_async_callback(member.stop)
            members.append(member)
        await asyncio.gather(*(member.ready() for member in members))
        yield Site(rest, members)


@dataclass(frozen=True)
class Held:
    """What the record says of a license at one moment: its sum, the ids of the machines with a seat by the names they came with,
    their fingerprints, and the events of their activations."""

    counted: int
    machines: dict[str, str]
    known: int
    told: int

    def agrees(self) -> bool:
        return self.counted == len(self.machines) == self.known == self.told <= SEATS


async def held(conn: asyncpg.Connection, license_id: str) -> Held:
    row = await conn.fetchrow(
        """
        SELECT (SELECT s.machines FROM machine.seat AS s WHERE s.license_id = $1) AS counted,
               coalesce(array_agg(ARRAY[m.external_id, m.machine_id]) FILTER (WHERE m.machine_id IS NOT NULL), '{}') AS found,
               (SELECT count(*) FROM machine.fingerprint AS f WHERE f.license_id = $1) AS known,
               (SELECT count(*) FROM record.event AS e
                 WHERE e.type = 'machine.activated' AND e.subject = ANY (array_agg(m.machine_id))) AS told
          FROM machine.machine AS m WHERE m.license_id = $1 AND m.deactivated_at IS NULL
        """,
        license_id,
    )
    assert row is not None
    return Held(row["counted"] or 0, dict(row["found"]), row["known"], row["told"])


@dataclass(frozen=True)
class Crowd:
    """Calls for one license, each for a machine of its own, told apart by the machine's external id."""

    license_id: str
    requests: dict[str, ActivateMachineRequest] = field(repr=False)

    @classmethod
    async def before(cls, shop: Shop) -> Crowd:
        """A new license."""
        issued = await shop.issue()
        mark = uuid4().hex
        return cls(
            issued.license.license_id,
            {
                name: ActivateMachineRequest(
                    request_id=str(uuid4()),
                    license=LicenseSelector(license_key=issued.key),
                    identity=MachineIdentity(fingerprint=f"fingerprint-{name}"),
                    external_id=name,
                )
                for name in (f"{mark}-{n:02}" for n in range(CROWD))
            },
        )


def seated(outcomes: dict[str, str]) -> dict[str, str]:
    """Machines by name, of those who were told that they have a seat."""
    return {name: outcome for name, outcome in outcomes.items() if outcome.startswith("mach_")}


@asynccontextmanager
async def unlimited(site: Site) -> AsyncGenerator[World]:
    """A fresh account whose calls have no rate: processes that are killed count for half a minute as some that share it."""
    suite = site.rest.suite
    async with suite.world() as world, suite.client(suite.operator_key) as operator:
        await operator.accounts.update(world.account_id, limits={"management_calls_per_second": 0})
        yield world


async def shop_in(world: World, scope: str) -> Shop:
    return await open_shop(world.test, scope, max_machines=SEATS, machine_uniqueness=f"UNIQUE_PER_{scope}")


@pytest.mark.parametrize("scope", SCOPES)
async def test_five_of_a_crowd_find_a_seat_each_time(site: Site, scope: str) -> None:
    asked_s = 0.0
    async with unlimited(site) as world, site.rest.suite.admin() as conn:
        shop = await shop_in(world, scope)
        for n in range(ROUNDS):
            crowd = await Crowd.before(shop)
            began = monotonic()
            answers = await asyncio.gather(
                *(
                    site.members[place % PROCESSES].ask(request, world.test_key)
                    for place, request in enumerate(crowd.requests.values())
                )
            )
            asked_s += monotonic() - began
            found = await held(conn, crowd.license_id)
            assert len(found.machines) == SEATS, f"round {n}: {Counter(answers)}"
            assert seated(dict(zip(crowd.requests, answers, strict=True))) == found.machines, f"round {n}"
            assert found.agrees(), f"round {n}: {found}"
            assert answers.count(FULL) == CROWD - SEATS, f"round {n}: {Counter(answers)}"
    calls = ROUNDS * CROWD
    print(
        f"\nunique per {scope.lower()}: {calls} activations over {PROCESSES} processes, {calls / asked_s:.0f} a second"
    )


@dataclass
class Fray:
    """One crowd whose calls are answered in part, as one of the processes is killed."""

    site: Site
    world: World
    crowd: Crowd
    victim: Member
    outcomes: dict[str, str] = field(default_factory=dict[str, str])

    async def ask(self, name: str, member: Member) -> None:
        self.outcomes[name] = await member.ask(self.crowd.requests[name], self.world.test_key)

    async def first(self, conn: asyncpg.Connection, kill_after: int) -> None:
        """All calls at once, and the kill amid them: after so many answers; of 0, when the record has a machine that came by the
        victim, or five."""
        homes = {name: self.site.members[n % PROCESSES] for n, name in enumerate(self.crowd.requests)}

        async def one(name: str, member: Member) -> None:
            await self.ask(name, member)
            if len(self.outcomes) == kill_after:
                self.victim.kill()

        async def watch() -> None:
            mine = [name for name, member in homes.items() if member is self.victim]
            while not await conn.fetchval(
                "SELECT count(*) = $4 OR bool_or(external_id = ANY ($3)) FROM machine.machine "
                "WHERE account_id = $1 AND mode = 'TEST' AND license_id = $2",
                self.world.account_id, self.crowd.license_id, mine, SEATS,
            ):  # fmt: skip
                pass
            self.victim.kill()

        await asyncio.gather(*(one(*home) for home in homes.items()), *(() if kill_after else (watch(),)))

    async def again(self, restarted: asyncio.Task[None]) -> None:
        """Who has no answer asks again under its request id: half elsewhere at once, half the same process when it is back."""
        others = [member for member in self.site.members if member is not self.victim]

        async def one(name: str, member: Member) -> None:
            if member is self.victim:
                await restarted
            async with asyncio.timeout(20):
                while self.outcomes[name] in TRY_AGAIN:
                    await self.ask(name, member)

        lost = [name for name, outcome in self.outcomes.items() if outcome in TRY_AGAIN]
        homes = [others[n % len(others)] if n % 2 else self.victim for n in range(len(lost))]
        await asyncio.gather(*map(one, lost, homes))


async def test_a_process_that_is_killed_amid_a_crowd_gives_no_seat_too_many_and_loses_none(site: Site) -> None:
    lost = untold = 0
    async with unlimited(site) as world, site.rest.suite.admin() as conn:
        shops = [await shop_in(world, scope) for scope in SCOPES]
        for n in range(KILLS):
            crowd = await Crowd.before(shops[n % len(SCOPES)])
            victim = site.members[(n + n // PROCESSES) % PROCESSES]
            fray = Fray(site, world, crowd, victim)
            await fray.first(conn, kill_after=n % 3)
            restarted = asyncio.create_task(victim.start_again())
            try:
                found = await held(conn, crowd.license_id)
                told, answers = seated(fray.outcomes), Counter(fray.outcomes.values())
                assert found.agrees(), f"round {n}: {found}"
                assert told.items() <= found.machines.items(), f"round {n}: {answers}"
                assert answers[LOST], f"round {n}: nothing was on its way"
                await fray.again(restarted)
            finally:
                await restarted
            lost += answers[LOST]
            untold += len(found.machines.keys() - told.keys())
            after, answers = await held(conn, crowd.license_id), Counter(fray.outcomes.values())
            assert after.agrees(), f"round {n}: {after}"
            assert len(after.machines) == SEATS, f"round {n}: {answers}"
            assert found.machines.items() <= after.machines.items() == seated(fray.outcomes).items(), f"round {n}"
            assert answers[FULL] == CROWD - SEATS, f"round {n}: {answers}"
            asked = {name: await victim.ask(crowd.requests[name], world.test_key) for name in after.machines}
            assert asked == after.machines, f"round {n}"
    print(
        f"\n{KILLS} kills: {lost} calls lost their answer, {untold} of them had a seat by then and were told so later"
    )
