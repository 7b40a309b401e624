"""Machines on seats: the limit holds, whoever has a seat gets it again, and who loses one has lost it at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from lictor import AsyncLictor, FailedPrecondition, LictorError, NotFound
from lictor.machine.v1.machine_pb2 import DeactivationReason, HeartbeatStatus, IdentityKind, MachineStatus

from tests.helpers.builders import Shop, events, open_shop
from tests.helpers.credentials import open_portal
from tests.helpers.lease import SHORT_LEASE_MS
from tests.helpers.record import where_found
from tests.helpers.suite import Suite, World

FIVE = 5
CROWD = 64


async def shop_with(world: World, **terms: Any) -> Shop:
    chosen: dict[str, Any] = {"max_machines": FIVE, **terms}
    return await open_shop(world.test, **chosen)


async def set_terms(suite: Suite, shop: Shop, **terms: Any) -> None:
    """Terms of a shop's policy as the record has them."""
    async with suite.admin() as conn:
        for column, value in terms.items():
            await conn.execute(
                f"UPDATE license.policy SET {column} = $2 WHERE policy_id = $1", shop.policy.policy_id, value
            )


async def refusal_of(call: Awaitable[Any]) -> str:
    """The reason that a call is refused for."""
    with pytest.raises(LictorError) as caught:
        await call
    return caught.value.reason


def a_fingerprint() -> str:
    return f"fingerprint-{uuid4().hex}"


async def seats(suite: Suite, license_id: str) -> tuple[int, int]:
    """How many the row of seats says are taken, and how many machines have one."""
    async with suite.admin() as conn:
        row = await conn.fetchrow(
            "SELECT s.machines, (SELECT count(*) FROM machine.machine AS m WHERE m.license_id = s.license_id "
            "AND m.deactivated_at IS NULL) AS live FROM machine.seat AS s WHERE s.license_id = $1",
            license_id,
        )
    return (0, 0) if row is None else (row["machines"], row["live"])


async def test_a_machine_takes_a_seat_and_is_read_as_it_said(suite: Suite, world: World) -> None:
    shop = await shop_with(world)
    issued = await shop.issue()
    made = await world.test.activate(
        key=issued.key, fingerprint=a_fingerprint(), external_id="m-1", display_name="Desk", hostname="desk.local",
        platform="LINUX", ip="10.0.0.7", cores=8, memory_bytes=2**34, disk_bytes=2**40, components={"gpu": "gpu-12345678"},
        labels={"room": "4"}, metadata={"x": 1},
    )  # fmt: skip
    machine = made.machine
    assert (made.already_active, made.overage, made.seats.taken, made.seats.limit) == (False, False, 1, FIVE)
    assert made.machine_secret.startswith("ms_")
    assert machine.license_id == issued.license.license_id
    assert (machine.identity_kind, machine.generation) == (IdentityKind.FINGERPRINT, 1)
    assert (machine.display_name, machine.hostname, machine.ip) == ("Desk", "desk.local", "10.0.0.7")
    assert (machine.cores, machine.memory_bytes, machine.disk_bytes) == (8, 2**34, 2**40)
    assert list(machine.component_names) == ["gpu"]
    assert machine.status == MachineStatus.active
    assert machine.heartbeat_status == HeartbeatStatus.NOT_STARTED
    assert await world.test.machines.get(machine.machine_id) == machine
    assert await world.test.machines.get(external_id="m-1") == machine
    assert [m async for m in world.test.machines.list(license_id=machine.license_id)] == [machine]
    told = await events(suite, machine.machine_id)
    assert [event["type"] for event in told] == ["machine.activated"]


async def test_who_has_a_seat_gets_it_again_without_another(suite: Suite, world: World) -> None:
    issued = await (await shop_with(world)).issue()
    fingerprint = a_fingerprint()
    first = await world.test.activate(key=issued.key, fingerprint=fingerprint)
    again = await world.test.activate(key=issued.key, fingerprint=fingerprint, display_name="another")
    assert again.already_active
    assert (again.machine, again.machine_secret) == (first.machine, first.machine_secret)
    assert await seats(suite, issued.license.license_id) == (1, 1)
    assert len(await events(suite, first.machine.machine_id)) == 1


async def test_the_seats_are_as_many_as_the_limit_and_free_again_when_given_up(suite: Suite, world: World) -> None:
    issued = await (await shop_with(world, max_machines=2)).issue()
    made = [await world.test.activate(key=issued.key, fingerprint=a_fingerprint()) for _ in range(2)]
    refused = a_fingerprint()
    with pytest.raises(FailedPrecondition) as caught:
        await world.test.activate(key=issued.key, fingerprint=refused)
    assert caught.value.reason == "MACHINE_LIMIT_EXCEEDED"
    assert caught.value.metadata == {"id": issued.license.license_id, "limit": "max_machines", "allowed": "2"}
    told = [event["type"] for event in await events(suite, issued.license.license_id)]
    assert told[-1] == "machine.activation_rejected"
    gone = await world.test.deactivate(made[0].machine.machine_id)
    assert gone.machine.status == MachineStatus.deactivated
    assert gone.machine.deactivation_reason == DeactivationReason.SELF
    assert not (await world.test.activate(key=issued.key, fingerprint=refused)).already_active
    assert await seats(suite, issued.license.license_id) == (2, 2)


async def test_what_the_policy_lets_it_exceed_is_told(world: World) -> None:
    issued = await (await shop_with(world, max_machines=5, overage_strategy="ALLOW_1_5X")).issue()
    made = [await world.test.activate(key=issued.key, fingerprint=a_fingerprint()) for _ in range(7)]
    assert [one.overage for one in made] == [False] * 5 + [True] * 2
    assert (
        await refusal_of(world.test.activate(key=issued.key, fingerprint=a_fingerprint())) == "MACHINE_LIMIT_EXCEEDED"
    )


@pytest.mark.parametrize("uniqueness", ["LICENSE", "POLICY", "PRODUCT", "ACCOUNT"])
async def test_five_of_a_crowd_find_a_seat(suite: Suite, world: World, uniqueness: str) -> None:
    shop = await shop_with(world)
    await set_terms(suite, shop, machine_uniqueness=f"UNIQUE_PER_{uniqueness}")
    issued = await shop.issue()

    async def one(fingerprint: str) -> str:
        try:
            made = await world.test.activate(key=issued.key, fingerprint=fingerprint, timeout_s=30)
        except LictorError as error:
            return error.reason
        return "again" if made.already_active else "seated"

    ended = await asyncio.gather(*(one(f"fingerprint-{n // 2}-of-a-crowd") for n in range(CROWD)))
    assert ended.count("seated") == FIVE
    assert ended.count("again") + ended.count("MACHINE_LIMIT_EXCEEDED") == CROWD - FIVE
    assert await seats(suite, issued.license.license_id) == (FIVE, FIVE)


@pytest.mark.parametrize("named", [False, True], ids=["one", "set"])
@pytest.mark.parametrize("uniqueness", ["POLICY", "PRODUCT", "ACCOUNT"])
async def test_one_of_two_licenses_has_a_fingerprint(
    suite: Suite, world: World, uniqueness: str, *, named: bool
) -> None:
    shop = await shop_with(world)
    await set_terms(suite, shop, machine_uniqueness=f"UNIQUE_PER_{uniqueness}")
    keys = [(await shop.issue()).key for _ in range(2)]
    fingerprint = {"a": "aaaaaaaa", "b": "bbbbbbbb"} if named else a_fingerprint()

    async def one(key: str) -> str:
        try:
            await world.test.activate(key=key, fingerprint=fingerprint)
        except LictorError as error:
            return error.reason
        return "seated"

    assert sorted(await asyncio.gather(*map(one, keys))) == ["FINGERPRINT_TAKEN", "seated"]


async def test_a_machine_is_known_where_its_scope_has_changed_since(suite: Suite, world: World) -> None:
    shop = await shop_with(world)
    issued = await shop.issue()
    fingerprint = a_fingerprint()
    first = await world.test.activate(key=issued.key, fingerprint=fingerprint)
    await set_terms(suite, shop, machine_uniqueness="UNIQUE_PER_ACCOUNT")
    again = await world.test.activate(key=issued.key, fingerprint=fingerprint)
    assert (again.already_active, again.machine.machine_id) == (True, first.machine.machine_id)


async def test_a_machine_is_recognised_by_some_of_its_fingerprints(suite: Suite, world: World) -> None:
    shop = await shop_with(world, max_machines=1)
    await set_terms(suite, shop, machine_matching="MATCH_MOST")
    issued = await shop.issue()
    before = {"board": "board-0001", "disk": "disk-00001", "mac": "mac-000001"}
    first = await world.test.activate(key=issued.key, fingerprint=before)
    assert list(first.machine.fingerprint_names) == ["board", "disk", "mac"]
    after = before | {"mac": "mac-000002"}
    again = await world.test.activate(key=issued.key, fingerprint=after)
    assert (again.already_active, again.machine.machine_id) == (True, first.machine.machine_id)
    # It is known by the new network card from now on, and so by two of three again after the disk.
    third = await world.test.activate(key=issued.key, fingerprint=after | {"disk": "disk-00002"})
    assert third.machine.machine_id == first.machine.machine_id
    other = {"board": "board-0002", "disk": "disk-00002", "mac": "mac-000003"}
    assert await refusal_of(world.test.activate(key=issued.key, fingerprint=other)) == "MACHINE_LIMIT_EXCEEDED"
    told = [event["type"] for event in await events(suite, first.machine.machine_id)]
    assert told == ["machine.activated", "machine.updated", "machine.updated"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("suspend", "STATE_TRANSITION_INVALID"),
        ("revoke", "STATE_TRANSITION_INVALID"),
        ("ban", "STATE_TRANSITION_INVALID"),
    ],
)
async def test_a_license_that_nobody_may_use_takes_no_machine(world: World, change: str, reason: str) -> None:
    issued = await (await shop_with(world)).issue()
    await getattr(world.test.licenses, change)(issued.license.license_id)
    assert await refusal_of(world.test.activate(key=issued.key, fingerprint=a_fingerprint())) == reason


async def test_a_floating_license_may_take_the_seat_of_the_oldest(suite: Suite, world: World) -> None:
    shop = await shop_with(world, max_machines=2, floating=True)
    await set_terms(suite, shop, seat_acquire="EVICT_OLDEST")
    issued = await shop.issue()
    made = [await world.test.activate(key=issued.key, fingerprint=a_fingerprint()) for _ in range(3)]
    assert list(made[2].evicted_machine_ids) == [made[0].machine.machine_id]
    loser = await world.test.machines.get(made[0].machine.machine_id)
    assert loser.deactivation_reason == DeactivationReason.EVICTED
    # Who lost its seat has lost it everywhere by then, which takes as long as a lease.
    waited = made[2].effective_time.ToDatetime() - made[2].machine.create_time.ToDatetime()
    assert waited > timedelta(milliseconds=SHORT_LEASE_MS)
    assert await seats(suite, issued.license.license_id) == (2, 2)


async def test_a_shipped_application_proves_its_machine(suite: Suite, world: World) -> None:
    shop = await shop_with(world)
    issued = await shop.issue()
    pk = (await world.test.api_keys.create(scopes=["machines:activate"], kind="PUBLISHABLE")).secret
    async with AsyncLictor(api_key=pk, endpoint=suite.bound.api_addr) as app:
        refused = app.activate(license_id=issued.license.license_id, fingerprint=a_fingerprint())
        assert await refusal_of(refused) == "CALLER_NOT_ALLOWED"
        made = await app.activate(key=issued.key, fingerprint=a_fingerprint(), labels={"a": "b"})
        assert not made.machine.labels
        machine_id = made.machine.machine_id
        for secret in ("", "ms_wrong", made.machine_secret[:-1] + "?"):
            assert await refusal_of(app.heartbeat(machine_id, machine_secret=secret)) == "CALLER_NOT_ALLOWED"
            assert await refusal_of(app.deactivate(machine_id, machine_secret=secret)) == "CALLER_NOT_ALLOWED"
        assert (
            await app.heartbeat(machine_id, machine_secret=made.machine_secret)
        ).heartbeat.status == HeartbeatStatus.ALIVE
        gone = await app.deactivate(machine_id, machine_secret=made.machine_secret)
        assert gone.machine.status == MachineStatus.deactivated


async def test_a_customer_sees_and_frees_its_own_machines_alone(suite: Suite, world: World) -> None:
    portal = await open_portal(suite, world)
    mine, others = portal.issued, await portal.shop.issue(customer_email="eve@example.com")
    own = await world.test.activate(license_id=mine.license.license_id, fingerprint=a_fingerprint(), labels={"a": "b"})
    foreign = await world.test.activate(license_id=others.license.license_id, fingerprint=a_fingerprint())
    customer = portal.client
    listed = [machine async for machine in customer.machines.list()]
    assert [machine.machine_id for machine in listed] == [own.machine.machine_id]
    assert not listed[0].labels
    with pytest.raises(NotFound):
        await customer.machines.get(foreign.machine.machine_id)
    with pytest.raises(NotFound):
        await customer.machines.deactivate(foreign.machine.machine_id)
    freed = await customer.machines.deactivate(own.machine.machine_id)
    assert freed.machine.deactivation_reason == DeactivationReason.CUSTOMER
    again = await world.test.activate(license_id=mine.license.license_id, fingerprint=a_fingerprint())
    await set_terms(suite, portal.shop, protected=True)
    assert await refusal_of(customer.machines.deactivate(again.machine.machine_id)) == "CALLER_NOT_ALLOWED"


async def test_a_seat_passes_to_another_machine(suite: Suite, world: World) -> None:
    shop = await shop_with(world, max_machines=1)
    issued = await shop.issue()
    made = await world.test.activate(key=issued.key, fingerprint=a_fingerprint())
    moved = await world.test.machines.transfer(made.machine.machine_id, fingerprint=a_fingerprint())
    assert moved.machine.machine_id != made.machine.machine_id
    assert moved.machine_secret != made.machine_secret
    before = await world.test.machines.get(made.machine.machine_id)
    assert before.deactivation_reason == DeactivationReason.TRANSFERRED
    assert await seats(suite, issued.license.license_id) == (1, 1)


async def test_how_often_seats_are_given_up_has_a_limit(suite: Suite, world: World) -> None:
    shop = await shop_with(world)
    await set_terms(suite, shop, max_transfers=1)
    issued = await shop.issue()
    made = [await world.test.activate(key=issued.key, fingerprint=a_fingerprint()) for _ in range(2)]
    await world.test.deactivate(made[0].machine.machine_id)
    assert await refusal_of(world.test.deactivate(made[1].machine.machine_id)) == "TRANSFER_LIMIT_EXCEEDED"
    # The vendor's own hand is not counted.
    await world.test.machines.deactivate(made[1].machine.machine_id)


async def test_no_fingerprint_is_kept_as_it_was_sent(suite: Suite, world: World) -> None:
    issued = await (await shop_with(world)).issue()
    fingerprint = a_fingerprint()
    made = await world.test.activate(key=issued.key, fingerprint=fingerprint, components={"gpu": fingerprint + "-gpu"})
    async with suite.admin() as conn:
        assert await where_found(conn, fingerprint) == []
        assert await where_found(conn, made.machine_secret) == []
