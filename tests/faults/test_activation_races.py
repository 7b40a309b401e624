"""A crowd at the five seats of a license, or at the five places of its processes, over four serving processes: five find one,
whatever is killed meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from os import environ
from time import monotonic
from typing import Final
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio
from lictor.common.v1.common_pb2 import LicenseSelector, MachineIdentity
from lictor.machine.v1.activation_service_pb2 import ActivateMachineRequest, HeartbeatProcessRequest
from lictor.machine.v1.machine_pb2 import Machine

from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.builders import Shop, open_shop
from tests.helpers.machine_site import LOST, PROCESSES, Member, Site, machine_site
from tests.helpers.suite import World
from tests.service.test_processes import FIVE, LEASINGS, counted, home

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

CROWD: Final = 64
SEATS: Final = 5
ROUNDS: Final = int(environ.get("LICTOR_RACE_ROUNDS", "200"))  # in each scope
AT_ONCE: Final = 2
"""Crowds, each at a license of an account of its own: while one is told that it is too late, another comes."""
STARTS: Final = 10  # crowds of processes, in each way of counting them
KILLS: Final = 24
SCOPES: Final = ("LICENSE", "POLICY", "PRODUCT", "ACCOUNT")
FULL: Final = "MACHINE_LIMIT_EXCEEDED"
TRY_AGAIN: Final = {LOST, "DUPLICATE_IN_FLIGHT", "TRANSACTION_CONFLICT"}  # no last word


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="site")
async def _site(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Site]:
    async with machine_site(postgres, tmp_path_factory.mktemp("races")) as made:
        yield made


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


async def shop_in(world: World, scope: str) -> Shop:
    return await open_shop(world.test, scope, max_machines=SEATS, machine_uniqueness=f"UNIQUE_PER_{scope}")


async def activated(member: Member, request: ActivateMachineRequest, api_key: str) -> str:
    """The id of the machine that has a seat by this call; else as `answered`."""
    answer = await member.activate(request, api_key)
    if isinstance(answer, str):
        return answer
    assert not answer.already_active, "each of the crowd has a fingerprint of its own"
    return answer.machine.machine_id


@pytest.mark.parametrize("scope", SCOPES)
async def test_five_of_a_crowd_find_a_seat_each_time(site: Site, scope: str) -> None:
    rounds, began = iter(range(ROUNDS)), monotonic()

    async def crowds() -> None:
        async with site.unlimited() as world, site.rest.suite.admin() as conn:
            shop = await shop_in(world, scope)
            for n in rounds:
                crowd = await Crowd.before(shop)
                answers = await asyncio.gather(
                    *(
                        activated(site.members[place % PROCESSES], request, world.test_key)
                        for place, request in enumerate(crowd.requests.values())
                    )
                )
                found = await held(conn, crowd.license_id)
                assert len(found.machines) == SEATS, f"round {n}: {Counter(answers)}"
                assert seated(dict(zip(crowd.requests, answers, strict=True))) == found.machines, f"round {n}"
                assert found.agrees(), f"round {n}: {found}"
                assert answers.count(FULL) == CROWD - SEATS, f"round {n}: {Counter(answers)}"

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(crowds())
    calls = ROUNDS * CROWD
    print(
        f"\nunique per {scope.lower()}: {calls} activations over {PROCESSES} processes, "
        f"{calls / (monotonic() - began):.0f} a second"
    )


@dataclass(frozen=True)
class Beaten:
    """A heartbeat of a process: what became of it, which process it is, and the name it has on which machine."""

    outcome: str
    process_id: str
    machine: Machine
    name: str


@pytest.mark.parametrize("leasing", LEASINGS)
async def test_of_a_crowd_of_processes_just_as_many_start_as_there_are_places(site: Site, leasing: str) -> None:
    """Every other time each two of the crowd are one process, which starts once."""
    machines, users, groups = LEASINGS[leasing]
    places, told = FIVE * groups, Counter[str]()
    async with site.unlimited() as world, site.rest.suite.admin() as conn:
        mine = await home(world, machines, users, process_leasing=leasing)
        license_id = mine.license.license_id
        shares = {"PER_MACHINE": "machine_id", "PER_USER": "user_id", "PER_LICENSE": "license_id"}[leasing]

        async def beat(place: int, machine: Machine, name: str, *, ended: bool = False) -> Beaten:
            request = HeartbeatProcessRequest(machine_id=machine.machine_id, name=name, ended=ended)
            answer = await site.members[place % PROCESSES].beat(request, world.test_key)
            if isinstance(answer, str):
                return Beaten(answer, "", machine, name)
            return Beaten("started" if answer.started else "there", answer.process.process_id, machine, name)

        for n in range(STARTS):
            names = [place // (1 + n % 2) for place in range(CROWD)]
            found = await asyncio.gather(
                *(beat(place, mine.machines[name % machines], f"{name}") for place, name in enumerate(names))
            )
            began = {one.process_id: one for one in found if one.outcome == "started"}
            outcomes = Counter(one.outcome for one in found)
            there = places if n % 2 else 0
            assert outcomes == Counter(started=places, there=there, **{FULL: CROWD - places - there}), f"round {n}"
            assert {one.process_id for one in found if one.outcome == "there"} == (set(began) if n % 2 else set())
            shared = Counter(getattr(one.machine, shares) for one in began.values())
            assert list(shared.values()) == [FIVE] * groups, f"round {n}: {shared}"
            rows = await conn.fetch("SELECT process_id FROM machine.process WHERE license_id = $1", license_id)
            assert {row["process_id"] for row in rows} == set(began), f"round {n}"
            assert await counted(site.rest.suite, license_id) == (places, places), f"round {n}"
            told += outcomes
            ends = (beat(n + place, one.machine, one.name, ended=True) for place, one in enumerate(began.values()))
            assert {one.process_id for one in await asyncio.gather(*ends)} == set(began), f"round {n}"
            assert await counted(site.rest.suite, license_id) == (0, 0), f"round {n}"
        events = await conn.fetch(
            "SELECT type, count(*) AS times FROM record.event "
            "WHERE account_id = $1 AND type LIKE 'process.%' GROUP BY type",
            world.account_id,
        )
    started, refused = STARTS * places, told[FULL]
    assert {row["type"]: row["times"] for row in events} == {
        "process.created": started, "process.deleted": started, "process.rejected": refused
    }  # fmt: skip
    print(f"\ncounted {leasing.lower()}: {started} started, and {refused} refused, over {PROCESSES} processes")


@dataclass
class Fray:
    """One crowd whose calls are answered in part, as one of the processes is killed."""

    site: Site
    world: World
    crowd: Crowd
    victim: Member
    outcomes: dict[str, str] = field(default_factory=dict[str, str])

    async def ask(self, name: str, member: Member) -> None:
        self.outcomes[name] = await activated(member, self.crowd.requests[name], self.world.test_key)

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
    async with site.unlimited() as world, site.rest.suite.admin() as conn:
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
            asked = {name: await activated(victim, crowd.requests[name], world.test_key) for name in after.machines}
            assert asked == after.machines, f"round {n}"
    print(
        f"\n{KILLS} kills: {lost} calls lost their answer, {untold} of them had a seat by then and were told so later"
    )
