"""Processes of machines: the limit is exact, a name is one process, and whoever loses its machine has lost its place at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any
from uuid import uuid4

import pytest
from lictor import AsyncLictor, FailedPrecondition, Lictor, LictorError
from lictor.license.v1.license_service_pb2 import License, LicenseOverrides
from lictor.machine.v1.machine_pb2 import Machine

from tests.helpers.builders import Shop, events, open_shop
from tests.helpers.credentials import open_portal
from tests.helpers.lease import lease_passes
from tests.helpers.machine_workers import looking
from tests.helpers.suite import Suite, World
from tests.service.test_machine_activation import a_fingerprint, refusal_of

FIVE = 5
CROWD = 64
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Home:
    """A license, and machines of it."""

    shop: Shop
    license: License
    key: str
    machines: list[Machine]
    secrets: list[str]

    @property
    def machine_id(self) -> str:
        return self.machines[0].machine_id


async def home(world: World, machines: int = 1, users: int = 0, **terms: Any) -> Home:
    """Machines take turns to be of one of the users."""
    chosen: dict[str, Any] = {"max_machines": 10, "max_processes": FIVE, "heartbeat_interval": MINUTE, **terms}
    shop = await open_shop(world.test, **chosen)
    issued = await shop.issue()
    holders = [(await shop.issue(customer_email=f"{n}@x.test")).license.customer_id for n in range(users)]
    made = [
        await world.test.activate(
            key=issued.key, fingerprint=a_fingerprint(), user_id=holders[n % users] if users else ""
        )
        for n in range(machines)
    ]
    return Home(shop, issued.license, issued.key, [one.machine for one in made], [one.machine_secret for one in made])


async def counted(suite: Suite, license_id: str) -> tuple[int, int]:
    """How many the row of seats says there are, and how many there are."""
    async with suite.admin() as conn:
        row = await conn.fetchrow(
            "SELECT s.processes, (SELECT count(*) FROM machine.process AS p WHERE p.license_id = s.license_id) AS there "
            "FROM machine.seat AS s WHERE s.license_id = $1",
            license_id,
        )
    assert row is not None
    return row["processes"], row["there"]


async def told(suite: Suite, subject: str) -> list[str]:
    return [one["type"] for one in await events(suite, subject) if one["type"].startswith("process.")]


async def test_a_process_starts_beats_and_ends(suite: Suite, world: World) -> None:
    mine = await home(world)
    first = await world.test.heartbeat_process(mine.machine_id, "worker 1")
    process = first.process
    assert first.started
    assert (process.machine_id, process.license_id, process.name, process.user_id) == (
        mine.machine_id, mine.license.license_id, "worker 1", "",
    )  # fmt: skip
    assert process.process_id.startswith("mproc_")
    assert process.start_time == process.last_heartbeat_time
    assert process.heartbeat_interval.ToTimedelta() == MINUTE
    lives_for = process.heartbeat_deadline.ToDatetime() - process.last_heartbeat_time.ToDatetime()
    assert lives_for == timedelta(seconds=90)
    again = await world.test.heartbeat_process(mine.machine_id, "worker 1")
    assert not again.started
    assert (again.process.process_id, again.process.start_time) == (process.process_id, process.start_time)
    assert again.process.last_heartbeat_time.ToDatetime() > process.last_heartbeat_time.ToDatetime()
    assert await counted(suite, mine.license.license_id) == (1, 1)
    gone = await world.test.heartbeat_process(mine.machine_id, "worker 1", ended=True)
    assert gone.process.process_id == process.process_id
    assert not gone.started
    assert not gone.process.HasField("heartbeat_deadline")
    assert not (await world.test.heartbeat_process(mine.machine_id, "worker 1", ended=True)).HasField("process")
    assert await counted(suite, mine.license.license_id) == (0, 0)
    anew = await world.test.heartbeat_process(mine.machine_id, "worker 1")
    assert anew.started
    assert anew.process.process_id != process.process_id
    assert await told(suite, mine.machine_id) == ["process.created", "process.deleted", "process.created"]


LEASINGS: dict[str, tuple[int, int, int]] = {"PER_MACHINE": (4, 0, 4), "PER_LICENSE": (4, 0, 1), "PER_USER": (4, 2, 2)}
"""Machines and users, and how many groups of processes are counted apart."""


@pytest.mark.parametrize("leasing", LEASINGS)
async def test_of_a_crowd_just_as_many_start_as_there_are_places(suite: Suite, world: World, leasing: str) -> None:
    machines, users, groups = LEASINGS[leasing]
    mine = await home(world, machines, users, process_leasing=leasing)

    async def one(n: int) -> tuple[str, str]:
        machine = mine.machines[n % machines]
        try:
            # Each name twice: both are the same process.
            answer = await world.test.heartbeat_process(machine.machine_id, f"p{n // (2 * machines)}", timeout_s=30)
        except LictorError as error:
            return error.reason, machine.machine_id
        return "started" if answer.started else "again", machine.machine_id

    ended = await asyncio.gather(*(one(n) for n in range(CROWD)))
    outcomes = [outcome for outcome, _ in ended]
    assert set(outcomes) <= {"started", "again", "MACHINE_LIMIT_EXCEEDED"}
    assert outcomes.count("started") == FIVE * groups
    assert await counted(suite, mine.license.license_id) == (FIVE * groups, FIVE * groups)
    for machine in mine.machines if leasing == "PER_MACHINE" else ():
        assert ended.count(("started", machine.machine_id)) == FIVE


async def test_who_finds_no_place_is_refused_and_the_vendor_is_told(suite: Suite, world: World) -> None:
    mine = await home(world, max_processes=2, overage_strategy="ALLOW_1_5X")
    for n in range(3):
        assert (await world.test.heartbeat_process(mine.machine_id, f"p{n}")).started
    with pytest.raises(FailedPrecondition) as caught:
        await world.test.heartbeat_process(mine.machine_id, "p3")
    assert caught.value.reason == "MACHINE_LIMIT_EXCEEDED"
    license_id = mine.license.license_id
    assert caught.value.metadata == {"id": license_id, "limit": "max_processes", "allowed": "3"}
    (*_, refusal) = await events(suite, license_id)
    assert refusal["type"] == "process.rejected"
    assert refusal["data"] == {
        "license_id": license_id, "machine_id": mine.machine_id, "limit": "max_processes", "allowed": 3, "processes": 3,
    }  # fmt: skip
    assert not (await world.test.heartbeat_process(mine.machine_id, "p0")).started
    await world.test.heartbeat_process(mine.machine_id, "p0", ended=True)
    assert (await world.test.heartbeat_process(mine.machine_id, "p3")).started


async def test_a_license_may_have_a_limit_of_its_own(world: World) -> None:
    mine = await home(world, max_processes=1, overridable=["MAX_PROCESSES"])
    await world.test.licenses.update(mine.license.license_id, overrides=LicenseOverrides(max_processes=2))
    assert (await world.test.heartbeat_process(mine.machine_id, "p0")).started
    assert (await world.test.heartbeat_process(mine.machine_id, "p1")).started
    assert await refusal_of(world.test.heartbeat_process(mine.machine_id, "p2")) == "MACHINE_LIMIT_EXCEEDED"


async def test_without_a_limit_any_number_starts(suite: Suite, world: World) -> None:
    mine = await home(world, max_processes=None)
    await asyncio.gather(*(world.test.heartbeat_process(mine.machine_id, f"p{n}", timeout_s=10) for n in range(12)))
    assert await counted(suite, mine.license.license_id) == (12, 12)


async def test_a_machine_of_nobody_starts_none_where_they_are_counted_per_user(world: World) -> None:
    mine = await home(world, process_leasing="PER_USER")
    assert await refusal_of(world.test.heartbeat_process(mine.machine_id, "p")) == "POLICY_INCOMPATIBLE"


async def test_a_user_keeps_the_places_of_what_was_started_before_the_machine_changed_hands(world: World) -> None:
    mine = await home(world, 2, 2, process_leasing="PER_USER", max_processes=1)
    one, two = (machine.user_id for machine in mine.machines)
    assert (await world.test.heartbeat_process(mine.machine_id, "p")).process.user_id == one
    await world.test.machines.update(mine.machine_id, user_id=two)
    await world.test.machines.update(mine.machines[1].machine_id, user_id=one)
    assert (await world.test.heartbeat_process(mine.machine_id, "q")).process.user_id == two
    other = mine.machines[1].machine_id
    assert await refusal_of(world.test.heartbeat_process(other, "r")) == "MACHINE_LIMIT_EXCEEDED"


@pytest.mark.parametrize("status", ["suspended", "expired", "revoked", "banned"])
async def test_a_license_that_may_not_be_used_starts_none(world: World, status: str) -> None:
    mine = await home(world)
    await world.test.heartbeat_process(mine.machine_id, "before")
    licenses, license_id = world.test.licenses, mine.license.license_id
    if status == "expired":
        start = mine.license.create_time.ToDatetime(UTC) - timedelta(days=9)
        await licenses.update(license_id, start_time=start, expire_time=start + timedelta(days=1))
    else:
        change = {"suspended": licenses.suspend, "revoked": licenses.revoke, "banned": licenses.ban}[status]
        await change(license_id)
    assert await refusal_of(world.test.heartbeat_process(mine.machine_id, "after")) == "STATE_TRANSITION_INVALID"
    await world.test.heartbeat_process(mine.machine_id, "before", ended=True)


Loss = Callable[[AsyncLictor, Home], Awaitable[Any]]
LOSSES: dict[str, Loss] = {
    "itself": lambda client, mine: client.deactivate(mine.machine_id),
    "the vendor": lambda client, mine: client.machines.deactivate(mine.machine_id),
    "transfer": lambda client, mine: client.machines.transfer(mine.machine_id, fingerprint=a_fingerprint()),
}


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_machine_that_loses_its_seat_takes_its_processes_with_it(suite: Suite, world: World, loss: str) -> None:
    mine = await home(world, 2)
    for machine in mine.machines:
        for n in range(2):
            await world.test.heartbeat_process(machine.machine_id, f"p{n}")
    await LOSSES[loss](world.test, mine)
    assert await counted(suite, mine.license.license_id) == (2, 2)
    assert await refusal_of(world.test.heartbeat_process(mine.machine_id, "p0")) == "STATE_TRANSITION_INVALID"
    assert not (await world.test.heartbeat_process(mine.machine_id, "p0", ended=True)).HasField("process")
    found = [one async for one in world.test.machines.list_processes(mine.license.license_id)]
    assert {one.machine_id for one in found} == {mine.machines[1].machine_id}


async def test_a_leased_seat_that_is_given_up_or_taken_away_takes_them_too(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test, floating=True, max_machines=4, max_processes=FIVE)
    issued = await shop.issue()
    granted = [
        (await world.test.acquire_seat(key=issued.key, fingerprint=a_fingerprint())).granted.machine for _ in range(2)
    ]
    for machine in granted:
        await world.test.heartbeat_process(machine.machine_id, "p")
    await world.test.release_seat(granted[0].machine_id, granted[0].lease.epoch)
    assert await counted(suite, issued.license.license_id) == (1, 1)
    await world.test.machines.evict_seat(granted[1].machine_id)
    assert await counted(suite, issued.license.license_id) == (0, 0)


async def test_the_end_of_a_license_takes_them_too(suite: Suite, world: World) -> None:
    mine = await home(world)
    await world.test.heartbeat_process(mine.machine_id, "p")
    await world.test.licenses.revoke(mine.license.license_id)
    async with suite.admin() as conn:
        await conn.execute("UPDATE machine.beat SET due_at = now() WHERE machine_id = $1", mine.machine_id)
    async with looking(suite) as looks:
        await looks.settle()
    assert await counted(suite, mine.license.license_id) == (0, 0)
    assert await told(suite, mine.machine_id) == ["process.created"]


async def test_a_validation_counts_them_from_the_start_to_the_end(world: World) -> None:
    mine = await home(world, 2, process_leasing="PER_LICENSE", max_processes=2, overage_strategy="ALWAYS_ALLOW")

    async def outcome() -> tuple[bool, str, list[tuple[int, int]]]:
        await lease_passes()
        found = await world.test.validate(key=mine.key)
        return found.valid, found.code, [(one.taken, one.limit) for one in found.exceeded]

    for n in range(2):
        await world.test.heartbeat_process(mine.machines[n].machine_id, "p")
    assert await outcome() == (True, "VALID", [])
    await world.test.heartbeat_process(mine.machine_id, "one too many")
    assert await outcome() == (True, "TOO_MANY_PROCESSES", [(3, 2)])
    await world.test.policies.update(mine.shop.policy.policy_id, overage_strategy="NO_OVERAGE")
    assert (await outcome())[:2] == (False, "TOO_MANY_PROCESSES")
    await world.test.heartbeat_process(mine.machine_id, "one too many", ended=True)
    assert await outcome() == (True, "VALID", [])
    await world.test.policies.update(mine.shop.policy.policy_id, max_processes=1)
    assert (await outcome())[:2] == (False, "TOO_MANY_PROCESSES")
    await world.test.deactivate(mine.machine_id)
    assert await outcome() == (True, "VALID", [])


@pytest.mark.parametrize(
    ("name", "reason"),
    [("", "REQUIRED"), ("x" * 65, "LENGTH_OUT_OF_RANGE"), ("a\nb", "FORMAT_INVALID"), ("\x7f", "FORMAT_INVALID")],
)
async def test_a_bad_name_is_refused(suite: Suite, world: World, name: str, reason: str) -> None:
    mine = await home(world)
    for ended in (False, True):
        with pytest.raises(LictorError) as caught:
            await world.test.heartbeat_process(mine.machine_id, name, ended=ended)
        assert [(one.field, one.reason) for one in caught.value.violations] == [("name", reason)]
    assert await counted(suite, mine.license.license_id) == (0, 0)


async def test_names_are_of_any_script_and_a_machines_own(world: World) -> None:
    mine = await home(world, 2)
    for name in ("x" * 64, "é 進程", "4711"):
        made = [await world.test.heartbeat_process(machine.machine_id, name) for machine in mine.machines]
        assert [(one.started, one.process.name) for one in made] == [(True, name)] * 2


async def test_a_publishable_key_needs_the_machines_secret_and_a_license_key_its_own_machine(
    suite: Suite, world: World
) -> None:
    mine = await home(world, authentication="LICENSE")
    elsewhere = await home_elsewhere(world)
    pk = (await world.test.api_keys.create(scopes=["machines:activate"], kind="PUBLISHABLE")).secret
    async with AsyncLictor(api_key=pk, endpoint=suite.bound.api_addr) as app:
        for secret in ("", elsewhere.secrets[0]):
            for ended in (False, True):
                asked = app.heartbeat_process(mine.machine_id, "p", machine_secret=secret, ended=ended)
                assert await refusal_of(asked) == "CALLER_NOT_ALLOWED"
        assert (await app.heartbeat_process(mine.machine_id, "p", machine_secret=mine.secrets[0])).started
        assert not (await app.heartbeat_process(mine.machine_id, "p", machine_secret=mine.secrets[0])).started
    async with AsyncLictor(api_key=pk, license_key=elsewhere.key, endpoint=suite.bound.api_addr) as stranger:
        for name, ended in (("p", False), ("q", False), ("p", True)):
            asked = stranger.heartbeat_process(mine.machine_id, name, ended=ended)
            assert await refusal_of(asked) == "MACHINE_NOT_FOUND"
    assert await refusal_of(world.live.heartbeat_process(mine.machine_id, "p")) == "MACHINE_NOT_FOUND"
    assert await counted(suite, mine.license.license_id) == (1, 1)
    async with AsyncLictor(api_key=pk, license_key=mine.key, endpoint=suite.bound.api_addr) as own:
        assert not (await own.heartbeat_process(mine.machine_id, "p")).started
        assert (await own.heartbeat_process(mine.machine_id, "p", ended=True)).HasField("process")


async def home_elsewhere(world: World) -> Home:
    shop = await open_shop(world.test, code="OTHER", max_machines=1, authentication="LICENSE")
    issued = await shop.issue()
    made = await world.test.activate(key=issued.key, fingerprint=a_fingerprint())
    return Home(shop, issued.license, issued.key, [made.machine], [made.machine_secret])


async def test_processes_are_listed_page_by_page(world: World) -> None:
    mine = await home(world, 2)
    made = [
        (await world.test.heartbeat_process(machine.machine_id, f"p{n}")).process
        for n in range(3)
        for machine in mine.machines
    ]
    license_id, machines = mine.license.license_id, world.test.machines
    found = [one async for one in machines.list_processes(license_id, page_size=2)]
    assert [one.process_id for one in found] == [one.process_id for one in made]
    assert found[0].heartbeat_deadline == made[0].heartbeat_deadline
    of_one = [one async for one in machines.list_processes(license_id, machine_id=mine.machine_id)]
    assert [one.name for one in of_one] == ["p0", "p1", "p2"]
    page = await machines.page_of_processes(license_id, page_size=2)
    asked = machines.page_of_processes(license_id, machine_id=mine.machine_id, page_token=page.next_page_token)
    assert await refusal_of(asked) == "PAGE_TOKEN_INVALID"
    other = await home_elsewhere(world)
    assert await refusal_of(machines.page_of_processes("")) == "FIELD_INVALID"
    assert await refusal_of(machines.page_of_processes(other.machine_id)) == "LICENSE_NOT_FOUND"
    asked = machines.page_of_processes(license_id, machine_id=other.machine_id)
    assert await refusal_of(asked) == "MACHINE_NOT_FOUND"


async def test_customers_see_the_processes_of_their_own_licenses_alone(suite: Suite, world: World) -> None:
    mine = await home(world)
    await world.test.heartbeat_process(mine.machine_id, "p")
    portal = await open_portal(suite, world, code="PORTAL")
    own = portal.issued.license.license_id
    made = await world.test.activate(license_id=own, fingerprint=a_fingerprint())
    await world.test.heartbeat_process(made.machine.machine_id, "q")
    async with portal.client as customer:
        found = [one async for one in customer.machines.list_processes(own)]
        assert [(one.name, one.machine_id) for one in found] == [("q", made.machine.machine_id)]
        asked = customer.machines.page_of_processes(mine.license.license_id)
        assert await refusal_of(asked) == "LICENSE_NOT_FOUND"


async def test_a_block_is_a_process_while_it_runs(suite: Suite, world: World) -> None:
    mine = await home(world, max_processes=1)
    async with world.test.process(mine.machine_id, "block") as running:
        assert await counted(suite, mine.license.license_id) == (1, 1)
        with pytest.raises(FailedPrecondition):
            async with world.test.process(mine.machine_id, "another"):
                raise AssertionError("there is no place for it")
        assert not running.lost
    assert await counted(suite, mine.license.license_id) == (0, 0)

    def block() -> list[str]:
        with (
            Lictor(api_key=world.test_key, endpoint=suite.bound.api_addr) as client,
            client.process(mine.machine_id, f"thread {uuid4()}"),
        ):
            return [one.name for one in client.machines.list_processes(mine.license.license_id)]

    assert len(await asyncio.to_thread(block)) == 1
    assert await counted(suite, mine.license.license_id) == (0, 0)
