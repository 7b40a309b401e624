"""What heartbeats and time do to machines, at each boundary to the microsecond: through real calls, while the clock stands."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from lictor import LictorError
from lictor.machine.v1.machine_pb2 import DeactivationReason, HeartbeatStatus, Machine, MachineStatus

from services.machine.fates import RECHECK
from services.machine.worker import AFTER_A_FAULT
from shared.embedded.postgres import EmbeddedPostgres
from shared.rules.heartbeats import DRIFT
from tests.helpers.builders import Shop, events, open_shop, shift
from tests.helpers.machine_workers import Looking, looking, machine_copies
from tests.helpers.record_clock import Standstill, standstill
from tests.helpers.suite import World

STEP = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)
LIVES = MINUTE + DRIFT
BEATS: dict[str, Any] = {"require_heartbeat": True, "heartbeat_interval": MINUTE}
IN_THE_RECORD = {"heartbeat_basis", "heartbeat_cull", "heartbeat_resurrection"}


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="still")
async def _still(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Standstill]:
    async with standstill(postgres, tmp_path_factory.mktemp("still")) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session", name="world")
async def _world(still: Standstill) -> AsyncGenerator[World]:
    async with still.suite.world() as fresh:
        yield fresh


@pytest_asyncio.fixture(loop_scope="session", name="looks")
async def _looks(still: Standstill) -> AsyncGenerator[Looking]:
    async with looking(still.suite) as one:
        await one.settle()  # what other tests have left
        yield one


@dataclass(frozen=True)
class Known:
    """An activated machine under a policy of its own."""

    still: Standstill
    world: World
    shop: Shop
    license_id: str
    key: str
    machine_id: str
    secret: str

    async def read(self) -> Machine:
        return await self.world.test.machines.get(self.machine_id)

    async def beat(self) -> Any:
        return await self.world.test.heartbeat(self.machine_id)

    async def told(self) -> list[str]:
        """What was told of it after its activation."""
        rows = await events(self.still.suite, self.machine_id)
        return [row["type"].removeprefix("machine.") for row in rows[1:]]

    async def last_heard(self) -> datetime | None:
        async with self.still.suite.admin() as conn:
            return await conn.fetchval(
                "SELECT last_heartbeat_at FROM machine.beat WHERE machine_id = $1", self.machine_id
            )

    async def seats(self) -> int:
        async with self.still.suite.admin() as conn:
            return await conn.fetchval("SELECT machines FROM machine.seat WHERE license_id = $1", self.license_id)


async def known(still: Standstill, world: World, **terms: Any) -> Known:
    """In the record only what a policy cannot be told yet."""
    terms = {"max_machines": 5, **BEATS, **terms}
    shop = await open_shop(world.test, **{name: value for name, value in terms.items() if name not in IN_THE_RECORD})
    async with still.suite.admin() as conn:
        for name in terms.keys() & IN_THE_RECORD:
            statement = f"UPDATE license.policy SET {name} = $2 WHERE policy_id = $1"
            await conn.execute(statement, shop.policy.policy_id, terms[name])
    issued = await shop.issue()
    made = await world.test.activate(key=issued.key, fingerprint=f"fingerprint-{uuid4().hex}")
    license_id = issued.license.license_id
    return Known(still, world, shop, license_id, issued.key, made.machine.machine_id, made.machine_secret)


async def refusal_of(call: Awaitable[Any]) -> str:
    with pytest.raises(LictorError) as caught:
        await call
    return caught.value.reason


def deadline_of(answer: Any) -> datetime:
    return answer.heartbeat.deadline.ToDatetime(tzinfo=UTC)


async def test_the_first_beat_starts_it_and_the_others_put_its_deadline_off(
    still: Standstill, world: World, looks: Looking
) -> None:
    machine = await known(still, world)
    began = await still.now()
    first = await machine.beat()
    assert (first.heartbeat.status, deadline_of(first)) == (HeartbeatStatus.ALIVE, began + LIVES)
    assert first.heartbeat.interval.ToTimedelta() == MINUTE
    later = await still.passes(LIVES - STEP)
    second = await machine.beat()
    assert (second.heartbeat.status, deadline_of(second), second.resurrected) == (
        HeartbeatStatus.ALIVE, later + LIVES, False,
    )  # fmt: skip
    assert await machine.last_heard() == later
    shown = await machine.read()
    assert shown.heartbeat_deadline.ToDatetime(tzinfo=UTC) == later + LIVES
    assert shown.revision == 2, "a plain heartbeat is no change of the machine"
    await looks.settle()
    assert await machine.told() == ["heartbeat.started"]


@pytest.mark.parametrize("late", [-STEP, timedelta(0), STEP])
async def test_a_machine_is_dead_from_its_deadline_on_and_its_death_is_told_once(
    still: Standstill, world: World, looks: Looking, late: timedelta
) -> None:
    machine = await known(still, world, heartbeat_cull="KEEP_DEAD")
    deadline = deadline_of(await machine.beat())
    await looks.settle()
    await still.at(deadline + late)
    alive = late < timedelta(0)
    assert (await machine.read()).heartbeat_status == (HeartbeatStatus.ALIVE if alive else HeartbeatStatus.DEAD)
    await looks.settle()
    await looks.settle()
    assert await machine.told() == ["heartbeat.started"] + ([] if alive else ["heartbeat.dead"])
    if alive:
        assert (await machine.beat()).heartbeat.status == HeartbeatStatus.ALIVE
        return
    (*_, dead) = await events(still.suite, machine.machine_id)
    assert datetime.fromisoformat(dead["data"]["died_at"]) == deadline
    assert (dead["actor"], dead["source"]) == ("worker", "worker")
    assert await refusal_of(machine.beat()) == "HEARTBEAT_DEAD"
    await still.passes(timedelta(days=1))
    await looks.settle()
    assert await machine.told() == ["heartbeat.started", "heartbeat.dead"]
    assert await machine.seats() == 1, "it is kept"


@pytest.mark.parametrize("late", [-STEP, timedelta(0)])
@pytest.mark.parametrize("seen", [True, False], ids=["seen", "unseen"])
async def test_a_dead_machine_lives_again_until_its_window_is_over(
    still: Standstill, world: World, looks: Looking, late: timedelta, seen: bool
) -> None:
    machine = await known(still, world, heartbeat_resurrection="REVIVE_2_MINUTES", heartbeat_cull="KEEP_DEAD")
    deadline = deadline_of(await machine.beat())
    if seen:
        await still.at(deadline)
        await looks.settle()
    await still.at(deadline + 2 * MINUTE + late)
    if late < timedelta(0):
        answer = await machine.beat()
        assert (answer.resurrected, answer.heartbeat.status) == (True, HeartbeatStatus.ALIVE)
        assert deadline_of(answer) == await still.now() + LIVES
        assert await machine.told() == ["heartbeat.started", "heartbeat.dead", "heartbeat.resurrected"]
    else:
        assert await refusal_of(machine.beat()) == "HEARTBEAT_DEAD"
        await looks.settle()
        assert await machine.told() == ["heartbeat.started", "heartbeat.dead"]


async def test_each_life_that_ends_is_told_of_once(still: Standstill, world: World, looks: Looking) -> None:
    machine = await known(still, world, heartbeat_resurrection="ALWAYS_REVIVE")
    for life in range(3):
        await machine.beat()
        await still.passes(LIVES)
        if life != 1:
            await looks.settle()
    await still.passes(timedelta(days=3))
    await looks.settle()
    expected = ["heartbeat.started", "heartbeat.dead", *["heartbeat.resurrected", "heartbeat.dead"] * 2]
    assert await machine.told() == expected, "and who may always live again is never deactivated"


@pytest.mark.parametrize("late", [-STEP, timedelta(0)])
async def test_a_dead_machine_is_deactivated_when_its_window_is_over(
    still: Standstill, world: World, looks: Looking, late: timedelta
) -> None:
    machine = await known(still, world, heartbeat_resurrection="REVIVE_1_MINUTE")
    deadline = deadline_of(await machine.beat())
    await still.at(deadline)
    await looks.settle()
    await still.at(deadline + MINUTE + late)
    await looks.settle()
    culled = late >= timedelta(0)
    assert await machine.told() == ["heartbeat.started", "heartbeat.dead"] + (["deactivated"] if culled else [])
    assert await machine.seats() == (0 if culled else 1)
    if culled:
        shown = await machine.read()
        assert (shown.status, shown.deactivation_reason) == (MachineStatus.deactivated, DeactivationReason.CULLED)
        assert await refusal_of(machine.beat()) == "STATE_TRANSITION_INVALID"
        assert await looks.settle() == 0


async def test_without_a_window_a_death_and_its_end_are_told_together(
    still: Standstill, world: World, looks: Looking
) -> None:
    machine = await known(still, world)
    await still.at(deadline_of(await machine.beat()))
    await looks.settle()
    assert await machine.told() == ["heartbeat.started", "heartbeat.dead", "deactivated"]


async def test_the_clock_of_a_machine_that_owes_beats_from_its_activation_runs_at_once(
    still: Standstill, world: World, looks: Looking
) -> None:
    machine = await known(still, world, heartbeat_basis="FROM_CREATION", heartbeat_cull="KEEP_DEAD")
    activated = await still.now()
    await still.at(activated + LIVES - STEP)
    await looks.settle()
    assert await machine.told() == []
    await still.at(activated + LIVES)
    await looks.settle()
    assert await machine.told() == ["heartbeat.dead"]


async def test_the_clock_of_a_machine_that_nothing_was_heard_of_stands_still(
    still: Standstill, world: World, looks: Looking
) -> None:
    machine = await known(still, world)
    await still.passes(timedelta(days=1))
    await looks.settle()
    assert await machine.told() == []
    assert (await machine.beat()).heartbeat.status == HeartbeatStatus.ALIVE


@pytest.mark.parametrize("late", [-STEP, timedelta(0)])
async def test_an_offline_file_pauses_the_clock_until_its_end(
    still: Standstill, world: World, looks: Looking, late: timedelta
) -> None:
    machine = await known(still, world, heartbeat_cull="KEEP_DEAD")
    await machine.beat()
    offline_until = await still.now() + timedelta(days=2)
    await shift(still.suite, "machine.machine", "machine_id", machine.machine_id, offline_until=offline_until)
    await looks.settle()
    await still.at(offline_until + LIVES + late)
    await looks.settle()
    assert await machine.told() == ["heartbeat.started"] + (["heartbeat.dead"] if late >= timedelta(0) else [])
    if late < timedelta(0):
        assert deadline_of(await machine.beat()) == await still.now() + LIVES


@pytest.mark.parametrize("seen", [True, False], ids=["seen", "unseen"])
async def test_a_dead_machine_that_is_reset_owes_nothing_until_it_is_heard_of(
    still: Standstill, world: World, looks: Looking, seen: bool
) -> None:
    machine = await known(still, world, heartbeat_resurrection="REVIVE_1_MINUTE")
    await still.at(deadline_of(await machine.beat()))
    if seen:
        await looks.settle()
    await world.test.machines.reset_heartbeat(machine.machine_id)
    await still.passes(timedelta(days=1))
    await looks.settle()
    assert (await machine.read()).heartbeat_status == HeartbeatStatus.NOT_STARTED
    answer = await machine.beat()
    assert (answer.heartbeat.status, answer.resurrected) == (HeartbeatStatus.ALIVE, False)
    assert await machine.told() == ["heartbeat.started", "heartbeat.dead", "heartbeat.reset", "heartbeat.started"]


async def test_a_policy_that_changes_is_seen_by_the_next_beat_and_by_the_worker(
    still: Standstill, world: World, looks: Looking
) -> None:
    machine = await known(still, world, heartbeat_interval=timedelta(hours=10), heartbeat_cull="KEEP_DEAD")
    await machine.beat()
    await looks.settle()
    await still.passes(timedelta(minutes=3))
    policy_id = machine.shop.policy.policy_id
    await world.test.policies.update(policy_id, heartbeat_interval=MINUTE)
    assert (await machine.read()).heartbeat_status == HeartbeatStatus.DEAD
    assert await refusal_of(machine.beat()) == "HEARTBEAT_DEAD"
    await world.test.policies.update(policy_id, require_heartbeat=False)
    answer = await machine.beat()
    assert answer.heartbeat.status == HeartbeatStatus.ALIVE
    assert not answer.heartbeat.HasField("deadline")
    await world.test.policies.update(policy_id, require_heartbeat=True)
    await still.passes(RECHECK)
    await looks.settle()
    assert await machine.told() == ["heartbeat.started", "heartbeat.dead"]


@pytest.mark.parametrize("late", [-STEP, timedelta(0)])
async def test_a_seat_whose_lease_is_over_is_freed(
    still: Standstill, world: World, looks: Looking, late: timedelta
) -> None:
    machine = await known(still, world, floating=True)
    await machine.beat()
    ends = await still.now() + timedelta(seconds=20)
    async with still.suite.admin() as conn:
        await conn.execute("UPDATE machine.machine SET lease_epoch = 1 WHERE machine_id = $1", machine.machine_id)
        await conn.execute(
            "UPDATE machine.beat SET lease_expires_at = $2 WHERE machine_id = $1", machine.machine_id, ends
        )
    await looks.settle()
    await still.at(ends + late)
    await looks.settle()
    if late < timedelta(0):
        assert await machine.seats() == 1
        assert (await machine.beat()).heartbeat.status == HeartbeatStatus.ALIVE
        return
    assert await machine.seats() == 0
    assert await refusal_of(machine.beat()) == "STATE_TRANSITION_INVALID"
    assert (await machine.read()).deactivation_reason == DeactivationReason.LEASE_EXPIRED
    assert len(await machine.told()) == 2


ENDS: dict[str, Callable[[Known], Awaitable[Any]]] = {
    "revoked": lambda one: one.world.test.licenses.revoke(one.license_id),
    "banned": lambda one: one.world.test.licenses.ban(one.license_id),
    "deleted": lambda one: one.world.test.licenses.delete(one.license_id),
}


@pytest.mark.parametrize("how", ENDS)
async def test_machines_of_a_license_that_has_ended_are_deactivated(
    still: Standstill, world: World, looks: Looking, how: str
) -> None:
    machine = await known(still, world, require_heartbeat=False)
    await looks.settle()
    await ENDS[how](machine)
    await still.passes(RECHECK)
    await looks.settle()
    await looks.settle()
    assert await machine.told() == ["deactivated"]
    assert await machine.seats() == 0
    assert (await machine.read()).deactivation_reason == DeactivationReason.LICENSE_ENDED


@pytest.mark.parametrize("late", [-STEP, timedelta(0)])
async def test_machines_of_a_license_that_its_policy_revokes_at_its_end_are_deactivated_then(
    still: Standstill, world: World, looks: Looking, late: timedelta
) -> None:
    machine = await known(still, world, require_heartbeat=False, expiration_strategy="REVOKE")
    ends = await still.now() + timedelta(hours=1)
    await shift(still.suite, "license.license", "license_id", machine.license_id, expires_at=ends)
    await looks.settle()
    await still.at(ends + late)
    await looks.settle()
    assert await machine.told() == (["deactivated"] if late >= timedelta(0) else [])


@pytest.mark.parametrize("how", ["suspend", "expire"])
async def test_machines_of_a_license_that_may_come_back_keep_their_seats(
    still: Standstill, world: World, looks: Looking, how: str
) -> None:
    machine = await known(still, world, require_heartbeat=False)
    if how == "suspend":
        await world.test.licenses.suspend(machine.license_id)
    else:
        await shift(still.suite, "license.license", "license_id", machine.license_id, expires_at=await still.now())
    await still.passes(RECHECK)
    await looks.settle()
    assert (await machine.told(), await machine.seats()) == ([], 1)


async def machine_has(still: Standstill, machine_id: str, column: str, value: Any) -> None:
    """The row of a machine as nothing but a hand in the database, or a later release, would write it."""
    async with still.suite.admin() as conn:
        checks = await conn.fetch(
            "SELECT conname FROM pg_constraint WHERE conrelid = 'machine.machine'::regclass AND contype = 'c' "
            "AND pg_get_constraintdef(oid) LIKE '%(' || $1 || '%'",
            column,
        )
        for check in checks:
            await conn.execute(f"ALTER TABLE machine.machine DROP CONSTRAINT {check['conname']}")
        await conn.execute(f"UPDATE machine.machine SET {column} = $2 WHERE machine_id = $1", machine_id, value)


BAD: dict[str, tuple[str, Any, Any]] = {
    "cannot be written": ("labels", [7], {}),
    "cannot be read": ("identity_kind", "OF_A_LATER_RELEASE", "FINGERPRINT"),
}
"""A column, what nobody here makes sense of, and what mends it."""


@pytest.mark.parametrize("how", BAD)
async def test_a_machine_that_makes_no_sense_keeps_no_other_from_its_fate(
    still: Standstill, world: World, looks: Looking, how: str
) -> None:
    column, bad, good = BAD[how]
    machine = await known(still, world, max_machines=20, heartbeat_cull="KEEP_DEAD")
    deadline = deadline_of(await machine.beat())
    others = await machine_copies(still.suite, machine.machine_id, 7)
    await machine_has(still, machine.machine_id, column, bad)
    await still.at(deadline)
    before = counted(looks)
    async with still.suite.admin() as conn:
        await conn.execute(
            "UPDATE machine.beat SET due_at = now() WHERE machine_id = ANY ($1)", [machine.machine_id, *others]
        )
    await looks.settle()
    for other in others:
        assert [row["type"] for row in await events(still.suite, other)] == ["machine.heartbeat.dead"]
    assert await machine.told() == ["heartbeat.started"]

    def unknown() -> float:
        return counted(looks)["lictor_machine_worker_unknown_total"] - before["lictor_machine_worker_unknown_total"]

    assert unknown() == 1
    assert counted(looks)["lictor_machine_worker_failures_total"] == before["lictor_machine_worker_failures_total"]
    async with still.suite.admin() as conn:
        due = await conn.fetchval("SELECT due_at FROM machine.beat WHERE machine_id = $1", machine.machine_id)
    assert due == deadline + AFTER_A_FAULT
    await machine_has(still, machine.machine_id, column, good)
    await still.at(due - STEP)
    await looks.settle()
    assert await machine.told() == ["heartbeat.started"], "it is not looked at before"
    await still.at(due)
    await looks.settle()
    assert await machine.told() == ["heartbeat.started", "heartbeat.dead"]
    assert unknown() == 1


def counted(looks: Looking) -> dict[str, float]:
    """What a worker has counted."""
    families = [family for collector in looks.metrics.collectors for family in collector.collect()]
    return {
        sample.name + "".join(sample.labels.values()): sample.value for family in families for sample in family.samples
    }


async def test_what_the_worker_tells_is_counted_with_how_late_it_was(
    still: Standstill, world: World, looks: Looking
) -> None:
    machine = await known(still, world, heartbeat_cull="KEEP_DEAD")
    await still.at(deadline_of(await machine.beat()) + MINUTE)
    before = counted(looks)
    await looks.settle()
    after = counted(looks)
    new = {name: value - before.get(name, 0) for name, value in after.items()}
    assert new["lictor_machine_worker_events_totalmachine.heartbeat.dead"] == 1
    assert (new["lictor_machine_worker_lag_seconds_count"], new["lictor_machine_worker_lag_seconds_sum"]) == (1, 60)
