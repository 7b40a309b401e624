"""Leased seats: never more than the limit, over at their very end, and of nobody but the latest lease."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from lictor.machine.v1.activation_service_pb2 import AcquireSeatRequest, RenewSeatRequest
from lictor.machine.v1.machine_pb2 import DeactivationReason, MachineStatus, SeatGrant

from services.machine import seat_store, store
from services.machine.commands.release_seat import release_seat
from services.machine.commands.renew_seat import renew_seat
from shared.db.pool import Database, PostgresTarget, Transaction, read_passwords
from shared.db.roles import Role
from shared.errors import DomainError, Reason
from tests.helpers.builders import Shop, ahead, events, open_shop, refused_unchanged, uuid
from tests.helpers.suite import Suite, World
from tests.service.test_machine_activation import CROWD, FIVE, a_fingerprint, refusal_of, seats, set_terms

US = timedelta(microseconds=1)


async def floating(suite: Suite, world: World, seats: int = FIVE, acquire: str = "REJECT", **terms: Any) -> Shop:
    """A shop whose licenses share `seats`."""
    shop = await open_shop(world.test, max_machines=seats, floating=True, **terms)
    await set_terms(suite, shop, seat_acquire=acquire)
    return shop


async def leased(world: World, key: str, fingerprint: str = "", **more: Any) -> SeatGrant:
    made = await world.test.acquire_seat(key=key, fingerprint=fingerprint or a_fingerprint(), **more)
    return made.granted


async def lease_ends(suite: Suite, machine_id: str, at: datetime) -> None:
    """Moves the end of a lease: how time passes for a test."""
    async with suite.admin() as conn:
        done = await conn.execute("UPDATE machine.beat SET lease_expires_at = $2 WHERE machine_id = $1", machine_id, at)
        assert done == "UPDATE 1"


async def run_out(suite: Suite, machine_id: str) -> None:
    await lease_ends(suite, machine_id, datetime.now(UTC) - timedelta(seconds=1))


async def types(suite: Suite, subject: str) -> list[str]:
    return [event["type"] for event in await events(suite, subject)]


async def test_a_seat_is_leased_renewed_and_given_up(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world)).issue()
    before = datetime.now(UTC)
    grant = await leased(world, issued.key, ttl=timedelta(seconds=30))
    machine, lease = grant.machine, grant.machine.lease
    assert (lease.epoch, grant.taken_over, grant.seats.taken, grant.seats.limit) == (1, False, 1, FIVE)
    assert timedelta(seconds=29) < lease.expire_time.ToDatetime(UTC) - before < timedelta(seconds=32)
    renewed = (await world.test.renew_seat(machine.machine_id, lease.epoch, ttl=timedelta(minutes=5))).lease
    assert renewed.epoch == lease.epoch
    assert timedelta(seconds=299) < renewed.expire_time.ToDatetime(UTC) - before < timedelta(seconds=303)
    assert (await world.test.machines.get(machine.machine_id)).lease == renewed
    gone = (await world.test.release_seat(machine.machine_id, lease.epoch, reason="done")).machine
    assert (gone.status, gone.deactivation_reason) == (MachineStatus.deactivated, DeactivationReason.SELF)
    assert not gone.HasField("lease")
    assert await seats(suite, issued.license.license_id) == (0, 0)
    told = await events(suite, machine.machine_id)
    assert [(one["type"], one["reason"]) for one in told] == [("seat.granted", ""), ("seat.released", "done")]
    assert told[0]["data"]["lease_epoch"] == 1
    assert await refusal_of(world.test.renew_seat(machine.machine_id, lease.epoch)) == "SEAT_LOST"
    assert await refusal_of(world.test.release_seat(machine.machine_id, lease.epoch)) == "SEAT_LOST"


async def test_a_crowd_leases_as_many_seats_as_there_are(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world)).issue()

    async def one() -> str:
        call = world.test.acquire_seat(key=issued.key, fingerprint=a_fingerprint(), timeout_s=30)
        try:
            await call
        except Exception as error:  # noqa: BLE001 - each is counted by its reason
            return getattr(error, "reason", type(error).__name__)
        return "OK"

    ended = Counter(await asyncio.gather(*(one() for _ in range(CROWD))))
    assert ended == {"OK": FIVE, "MACHINE_LIMIT_EXCEEDED": CROWD - FIVE}
    assert await seats(suite, issued.license.license_id) == (FIVE, FIVE)
    async with suite.admin() as conn:
        epochs = await conn.fetch(
            "SELECT lease_epoch FROM machine.machine WHERE license_id = $1 ORDER BY 1", issued.license.license_id
        )
    assert [row["lease_epoch"] for row in epochs] == [1, 2, 3, 4, 5]


async def test_a_lease_that_is_over_is_freed_by_who_comes_next(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world, seats=1)).issue()
    first = (await leased(world, issued.key)).machine
    assert await refusal_of(leased(world, issued.key)) == "MACHINE_LIMIT_EXCEEDED"
    await run_out(suite, first.machine_id)
    assert (await world.test.machines.get(first.machine_id)).status == MachineStatus.deactivated
    second = (await leased(world, issued.key)).machine
    assert second.lease.epoch > first.lease.epoch
    assert (await world.test.machines.get(first.machine_id)).deactivation_reason == DeactivationReason.LEASE_EXPIRED
    told = await events(suite, first.machine_id)
    assert [(one["type"], one["reason"]) for one in told] == [("seat.granted", ""), ("seat.expired", "LEASE_EXPIRED")]
    for late in (world.test.renew_seat, world.test.release_seat):
        assert await refusal_of(late(first.machine_id, first.lease.epoch)) == "SEAT_LOST"
    assert (await world.test.renew_seat(second.machine_id, second.lease.epoch)).lease.epoch == second.lease.epoch
    assert await seats(suite, issued.license.license_id) == (1, 1)


async def test_an_activation_frees_leases_that_are_over_as_well(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world, seats=1)).issue()
    first = (await leased(world, issued.key)).machine
    await run_out(suite, first.machine_id)
    assert not (await world.test.activate(key=issued.key, fingerprint=a_fingerprint())).already_active
    assert (await types(suite, first.machine_id))[-1] == "seat.expired"


async def test_a_lease_that_is_over_is_never_renewed_though_nobody_took_the_seat(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world)).issue()
    fingerprint = a_fingerprint()
    first = (await leased(world, issued.key, fingerprint)).machine
    await run_out(suite, first.machine_id)
    assert await refusal_of(world.test.renew_seat(first.machine_id, first.lease.epoch)) == "SEAT_LOST"
    again = await leased(world, issued.key, fingerprint)
    assert again.machine.machine_id != first.machine_id
    assert (again.machine.lease.epoch, again.machine.generation, again.taken_over) == (2, 2, False)


async def test_the_same_machine_takes_its_seat_over_and_the_older_holder_has_lost_it(
    suite: Suite, world: World
) -> None:
    issued = await (await floating(suite, world, seats=1)).issue()
    fingerprint = a_fingerprint()
    old = await leased(world, issued.key, fingerprint)
    new = await leased(world, issued.key, fingerprint)
    machine_id = old.machine.machine_id
    assert (new.machine.machine_id, new.taken_over, new.machine.lease.epoch) == (machine_id, True, 2)
    assert new.machine_secret == old.machine_secret
    for late in (world.test.renew_seat, world.test.release_seat):
        assert await refusal_of(late(machine_id, 1)) == "SEAT_LOST"
    assert (await world.test.renew_seat(machine_id, 2)).lease.epoch == 2
    assert await seats(suite, issued.license.license_id) == (1, 1)
    assert await types(suite, machine_id) == ["seat.granted", "seat.granted"]


async def test_a_retry_gets_the_lease_of_its_first_call(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world)).issue()
    fingerprint, request_id = a_fingerprint(), uuid()
    first, again = [await leased(world, issued.key, fingerprint, request_id=request_id) for _ in range(2)]
    assert first == again
    machine = first.machine
    renewals = [await world.test.renew_seat(machine.machine_id, 1, request_id=request_id) for _ in range(2)]
    assert renewals[0].lease == renewals[1].lease


@pytest.mark.parametrize("acquire", ["EVICT_OLDEST", "EVICT_DEAD_FIRST"])
async def test_where_the_policy_evicts_the_seat_is_taken_from_the_right_one(
    suite: Suite, world: World, acquire: str
) -> None:
    issued = await (await floating(suite, world, seats=2, acquire=acquire)).issue()
    a, b = [(await leased(world, issued.key)).machine for _ in range(2)]
    await world.test.renew_seat(a.machine_id, a.lease.epoch)  # heard of later than b, and older
    grant = await leased(world, issued.key)
    loser, other = (a, b) if acquire == "EVICT_OLDEST" else (b, a)
    assert list(grant.evicted_machine_ids) == [loser.machine_id]
    assert (await types(suite, loser.machine_id))[-1] == "seat.evicted"
    assert await refusal_of(world.test.renew_seat(loser.machine_id, loser.lease.epoch)) == "SEAT_LOST"
    assert (await world.test.renew_seat(other.machine_id, other.lease.epoch)).lease.epoch == other.lease.epoch
    assert await seats(suite, issued.license.license_id) == (2, 2)


async def test_a_lease_never_outlasts_its_license(suite: Suite, world: World) -> None:
    shop = await floating(suite, world)
    ends = ahead(seconds=40)
    issued = await shop.issue(expire_time=ends)
    machine = (await leased(world, issued.key, ttl=timedelta(hours=1))).machine
    assert machine.lease.expire_time.ToDatetime(UTC) == ends
    renewed = await world.test.renew_seat(machine.machine_id, machine.lease.epoch, ttl=timedelta(minutes=2))
    assert renewed.lease.expire_time.ToDatetime(UTC) == ends
    await world.test.licenses.suspend(issued.license.license_id)
    late = world.test.renew_seat(machine.machine_id, machine.lease.epoch)
    assert await refusal_of(late) == "STATE_TRANSITION_INVALID"


async def test_only_floating_licenses_lease_seats(suite: Suite, world: World) -> None:
    issued = await (await open_shop(world.test)).issue()
    assert await refusal_of(leased(world, issued.key)) == "POLICY_INCOMPATIBLE"
    assert await seats(suite, issued.license.license_id) == (0, 0)


async def test_bad_fields_are_all_named(suite: Suite, world: World) -> None:
    asked = AcquireSeatRequest(request_id="x", cores=0)
    asked.ttl.seconds = 9
    refusal = await refused_unchanged(suite, world, asked)
    assert {field for field, _ in refusal.violations} == {"request_id", "license", "identity", "ttl", "cores"}
    renewal = RenewSeatRequest(epoch=-1)
    renewal.ttl.seconds = 3601
    refusal = await refused_unchanged(suite, world, renewal)
    assert {field for field, _ in refusal.violations} == {"machine_id", "epoch", "ttl"}


async def test_a_shipped_application_proves_its_machine(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world)).issue()
    made = await world.test.api_keys.create(kind="PUBLISHABLE", scopes=["machines:activate"])
    async with suite.client(made.secret) as shipped:
        grant = (await shipped.acquire_seat(key=issued.key, fingerprint=a_fingerprint())).granted
        machine_id, epoch = grant.machine.machine_id, grant.machine.lease.epoch
        assert await refusal_of(shipped.renew_seat(machine_id, epoch)) == "CALLER_NOT_ALLOWED"
        secret = grant.machine_secret
        assert (await shipped.renew_seat(machine_id, epoch, machine_secret=secret)).lease.epoch == epoch
        assert await refusal_of(shipped.release_seat(machine_id, epoch, machine_secret="ms_x")) == "CALLER_NOT_ALLOWED"
        await shipped.release_seat(machine_id, epoch, machine_secret=secret)


async def test_another_account_has_no_such_machine(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world)).issue()
    machine = (await leased(world, issued.key)).machine
    async with suite.world() as other:
        for call in (other.test.renew_seat, other.test.release_seat):
            assert await refusal_of(call(machine.machine_id, 1)) == "MACHINE_NOT_FOUND"


async def machine_db(suite: Suite) -> Database:
    target = PostgresTarget(
        suite.settings.postgres_dsn.get_secret_value(), read_passwords(suite.settings.postgres_password_file)
    )
    return await Database.open(target, Role.MACHINE)


@pytest.mark.parametrize("left", [-US, 0 * US, US])
async def test_a_lease_is_over_at_its_end_to_the_microsecond(suite: Suite, world: World, left: timedelta) -> None:
    """Within one transaction, whose time does not pass: the end is moved around it."""
    issued = await (await floating(suite, world, seats=1)).issue()
    machine = (await leased(world, issued.key)).machine
    db = await machine_db(suite)
    try:
        async with db.transaction(world.tenant()) as tx:
            found = await store.hold_beat(tx, machine.machine_id)
            assert found is not None
            await tx.conn.execute(
                "UPDATE machine.beat SET lease_expires_at = $3 WHERE account_id = $1 AND mode = $2", world.account_id,
                "TEST", tx.now + left,
            )  # fmt: skip
            assert await lost(renew_seat(tx, machine_id=machine.machine_id, epoch=1, ttl=left)) == (left <= 0 * US)
            over = await store.hold_over(tx, issued.license.license_id)
            assert [one.machine_id for one in over] == ([] if left > 0 * US else [machine.machine_id])
            gone = release_seat(tx, actor="key_1", machine_id=machine.machine_id, epoch=1, reason="")
            assert await lost(gone) == (left <= 0 * US)
    finally:
        await db.close()


async def lost(call: Any) -> bool:
    try:
        await call
    except DomainError as error:
        assert error.reason is Reason.SEAT_LOST
        return True
    return False


async def test_renewals_do_not_wait_for_who_holds_the_seats(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world)).issue()
    machine = (await leased(world, issued.key)).machine
    db = await machine_db(suite)
    try:
        async with db.transaction(world.tenant()) as tx:
            await seat_store.lock_seats(tx, issued.license.license_id)
            await world.test.renew_seat(machine.machine_id, machine.lease.epoch, timeout_s=2)
    finally:
        await db.close()


async def test_a_renewal_and_a_freeing_never_both_win(suite: Suite, world: World) -> None:
    """A renewal that began before the end, and waits for whoever frees the seat after it, finds the seat lost."""
    issued = await (await floating(suite, world, seats=1)).issue()
    db = await machine_db(suite)

    async def renew(tx: Transaction, machine_id: str, epoch: int) -> str:
        return (
            "lost"
            if await lost(renew_seat(tx, machine_id=machine_id, epoch=epoch, ttl=timedelta(hours=1)))
            else "renewed"
        )

    try:
        for _ in range(10):
            machine = (await leased(world, issued.key)).machine
            async with db.transaction(world.tenant()) as early:
                await lease_ends(suite, machine.machine_id, early.now + timedelta(milliseconds=20))
                await asyncio.sleep(0.03)
                taker = asyncio.create_task(leased(world, issued.key))
                await asyncio.sleep(0.002)
                how = await renew(early, machine.machine_id, machine.lease.epoch)
            got = (await asyncio.gather(taker, return_exceptions=True))[0]
            assert (how == "renewed") == isinstance(got, BaseException)
            assert await seats(suite, issued.license.license_id) == (1, 1)
            holder = machine if isinstance(got, BaseException) else got.machine
            await world.test.release_seat(holder.machine_id, holder.lease.epoch)
    finally:
        await db.close()


async def test_races_of_leases_leave_one_holder(suite: Suite, world: World) -> None:
    """Everybody evicts, renews and releases at once: what is taken is what is there, and the latest lease alone renews."""
    issued = await (await floating(suite, world, seats=2, acquire="EVICT_OLDEST")).issue()
    held: list[tuple[str, int]] = []

    async def holder() -> Counter[str]:
        ended: Counter[str] = Counter()
        for _ in range(4):
            machine = (await leased(world, issued.key)).machine
            held.append((machine.machine_id, machine.lease.epoch))
            for call in (world.test.renew_seat, world.test.release_seat):
                try:
                    await call(machine.machine_id, machine.lease.epoch)
                except Exception as error:  # noqa: BLE001 - each is counted by its reason
                    ended[getattr(error, "reason", type(error).__name__)] += 1
                else:
                    ended["OK"] += 1
        return ended

    ended = sum(await asyncio.gather(*(holder() for _ in range(8))), Counter[str]())
    assert set(ended) <= {"OK", "SEAT_LOST"}
    machines, live = await seats(suite, issued.license.license_id)
    assert machines == live <= 2
    assert len({epoch for _, epoch in held}) == len(held) == 32
