"""Those who wait for a seat get it in their order, for as long as they ask."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from lictor.machine.v1.activation_service_pb2 import AcquireSeatResponse
from lictor.machine.v1.machine_pb2 import SeatGrant

from tests.helpers.builders import events
from tests.helpers.suite import Suite, World
from tests.service.test_floating_seats import floating, leased, run_out
from tests.service.test_machine_activation import a_fingerprint, refusal_of, seats, set_terms


async def asked(world: World, key: str, fingerprint: str, **more: Any) -> AcquireSeatResponse:
    return await world.test.acquire_seat(key=key, fingerprint=fingerprint, **more)


async def position(world: World, key: str, fingerprint: str) -> int:
    """Among those who wait; 0 for who has got a seat."""
    return (await asked(world, key, fingerprint)).queued.position


async def release(world: World, grant: SeatGrant) -> None:
    await world.test.release_seat(grant.machine.machine_id, grant.machine.lease.epoch)


async def lapse(suite: Suite, ticket_id: str) -> None:
    """Time passes, and whoever has the place did not ask again."""
    async with suite.admin() as conn:
        done = await conn.execute("UPDATE machine.seat_wait SET lapses_at = now() WHERE ticket_id = $1", ticket_id)
        assert done == "UPDATE 1"


async def waiting(suite: Suite, license_id: str) -> int:
    async with suite.admin() as conn:
        return await conn.fetchval("SELECT count(*) FROM machine.seat_wait WHERE license_id = $1", license_id)


async def test_a_free_seat_is_for_who_waits_first(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world, seats=1, acquire="QUEUE")).issue()
    holder = await leased(world, issued.key)
    a, b, c = (a_fingerprint() for _ in range(3))
    first = (await asked(world, issued.key, a)).queued
    assert (first.position, first.seats.taken, first.seats.limit) == (1, 1, 1)
    assert timedelta(seconds=10) < first.lapse_time.ToDatetime(UTC) - datetime.now(UTC) < timedelta(seconds=16)
    assert [await position(world, issued.key, one) for one in (b, c, b)] == [2, 3, 2]
    assert (await asked(world, issued.key, a)).queued.ticket_id == first.ticket_id
    await release(world, holder)
    assert [await position(world, issued.key, one) for one in (c, b)] == [3, 2]
    assert (
        await refusal_of(world.test.activate(key=issued.key, fingerprint=a_fingerprint())) == "MACHINE_LIMIT_EXCEEDED"
    )
    got = (await asked(world, issued.key, a)).granted
    assert got.machine.lease.epoch > holder.machine.lease.epoch
    assert [await position(world, issued.key, one) for one in (c, b)] == [2, 1]
    told = [e for e in await events(suite, issued.license.license_id) if e["type"] == "seat.queued"]
    assert [event["data"]["position"] for event in told] == [1, 2, 3]
    assert told[0]["data"]["ticket_id"] == first.ticket_id


async def test_who_does_not_ask_again_loses_the_place(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world, seats=1, acquire="QUEUE")).issue()
    holder = await leased(world, issued.key)
    a, b = a_fingerprint(), a_fingerprint()
    ticket_id = (await asked(world, issued.key, a)).queued.ticket_id
    assert await position(world, issued.key, b) == 2
    await lapse(suite, ticket_id)
    assert await position(world, issued.key, b) == 1
    await release(world, holder)
    assert (await asked(world, issued.key, b)).HasField("granted")
    again = (await asked(world, issued.key, a)).queued
    assert again.position == 1
    assert again.ticket_id != ticket_id
    assert await waiting(suite, issued.license.license_id) == 1


async def test_a_lease_that_is_over_makes_way_for_the_queue(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world, seats=1, acquire="QUEUE")).issue()
    holder = await leased(world, issued.key)
    a, b = a_fingerprint(), a_fingerprint()
    assert [await position(world, issued.key, one) for one in (a, b)] == [1, 2]
    await run_out(suite, holder.machine.machine_id)
    assert await position(world, issued.key, b) == 2
    assert (await asked(world, issued.key, a)).HasField("granted")


async def test_a_call_waits_for_a_seat_and_gets_it_once_it_is_free(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world, seats=1, acquire="QUEUE")).issue()
    holder = await leased(world, issued.key)
    wait = timedelta(seconds=8)
    call = asyncio.create_task(asked(world, issued.key, a_fingerprint(), wait=wait))
    while await waiting(suite, issued.license.license_id) < 1:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.01)
    begun = time.monotonic()
    await release(world, holder)
    assert (await call).HasField("granted")
    assert time.monotonic() - begun < 1.0
    assert await waiting(suite, issued.license.license_id) == 0


async def test_a_call_that_waits_in_vain_says_where_it_stands(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world, seats=1, acquire="QUEUE")).issue()
    await leased(world, issued.key)
    begun = time.monotonic()
    answer = await asked(world, issued.key, a_fingerprint(), wait=timedelta(seconds=1))
    assert 0.9 < time.monotonic() - begun < 5
    assert answer.queued.position == 1


async def test_those_who_wait_are_served_in_order(suite: Suite, world: World) -> None:
    """Each gives the seat back at once; their leases have the order of their places."""
    issued = await (await floating(suite, world, seats=1, acquire="QUEUE")).issue()
    holder = await leased(world, issued.key)
    order: list[int] = []

    async def waiter(n: int, fingerprint: str) -> None:
        answer = await asked(world, issued.key, fingerprint, wait=timedelta(seconds=20), timeout_s=25)
        order.append(n)
        await release(world, answer.granted)

    fingerprints = [a_fingerprint() for _ in range(8)]
    for n, fingerprint in enumerate(fingerprints, start=1):
        assert await position(world, issued.key, fingerprint) == n
    tasks = [asyncio.create_task(waiter(n, one)) for n, one in enumerate(fingerprints)]
    await asyncio.sleep(0.2)
    await release(world, holder)
    await asyncio.gather(*tasks)
    assert order == list(range(8))
    assert await seats(suite, issued.license.license_id) == (0, 0)


async def test_a_crowd_that_queues_takes_no_more_than_there_is(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world, seats=5, acquire="QUEUE")).issue()
    answers = await asyncio.gather(*(asked(world, issued.key, a_fingerprint(), timeout_s=30) for _ in range(32)))
    assert Counter(one.WhichOneof("outcome") for one in answers) == {"granted": 5, "queued": 27}
    assert sorted(one.queued.position for one in answers if one.HasField("queued")) == list(range(1, 28))
    assert await seats(suite, issued.license.license_id) == (5, 5)


async def test_per_user_each_user_has_a_queue_of_its_own(suite: Suite, world: World) -> None:
    shop = await floating(suite, world, seats=1, acquire="QUEUE")
    await set_terms(suite, shop, machine_leasing="PER_USER")
    issued = await shop.issue(customer_email="a@example.com")
    other = await shop.issue(customer_email="b@example.com")
    users = [issued.license.customer_id, other.license.customer_id]
    for user_id in users:
        assert (await asked(world, issued.key, a_fingerprint(), user_id=user_id)).HasField("granted")
    for user_id in users:
        assert (await asked(world, issued.key, a_fingerprint(), user_id=user_id)).queued.position == 1
    assert (await asked(world, issued.key, a_fingerprint(), user_id=users[0])).queued.position == 2
