"""Seats that streams hold: for as long as they last and a grace, by the latest stream alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc.aio
from lictor.common.v1.common_pb2 import LicenseSelector, MachineIdentity
from lictor.machine.v1 import activation_service_pb2_grpc as stubs
from lictor.machine.v1.activation_service_pb2 import HoldSeatRequest, HoldSeatResponse
from lictor.machine.v1.machine_pb2 import DeactivationReason, Machine

from services.machine.holds import Hold, Holds
from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.builders import blocked_backend, events, held, open_shop, refused_by
from tests.helpers.record import OwnRecord, scratch
from tests.helpers.suite import Suite, World, bearer, running_suite
from tests.service.test_floating_seats import floating, leased, machine_db, refusal_of, run_out
from tests.service.test_machine_activation import a_fingerprint, seats

Stream = grpc.aio.UnaryStreamCall[HoldSeatRequest, HoldSeatResponse]


def asked(key: str, fingerprint: str = "", grace_s: int = 5, resume_token: str = "") -> HoldSeatRequest:
    request = HoldSeatRequest(
        license=LicenseSelector(license_key=key),
        identity=MachineIdentity(fingerprint=fingerprint or a_fingerprint()),
        resume_token=resume_token,
    )
    request.grace.seconds = grace_s
    return request


@asynccontextmanager
async def stream(suite: Suite, world: World, request: HoldSeatRequest) -> AsyncGenerator[Stream]:
    opened: Any = stubs.ActivationServiceStub(suite.channel).HoldSeat(request, metadata=bearer(world.test_key))
    try:
        yield opened
    finally:
        opened.cancel()


async def told(opened: Stream, within_s: float = 10.0) -> HoldSeatResponse:
    async with asyncio.timeout(within_s):
        answer: Any = await opened.read()
    assert isinstance(answer, HoldSeatResponse), "the stream has ended"
    return answer


async def end_of(opened: Stream, within_s: float = 10.0) -> str:
    """The reason that a stream ends with; what it tells before that is passed over."""

    async def rest() -> None:
        while await opened.read() is not grpc.aio.EOF:
            pass

    async with asyncio.timeout(within_s):
        return (await refused_by(rest())).reason


async def holds_on(world: World, machine: Machine) -> bool:
    """Whether somebody renews the lease, by what the record says of it."""
    before = (await world.test.machines.get(machine.machine_id)).lease.expire_time
    await asyncio.sleep(2.0)
    return (await world.test.machines.get(machine.machine_id)).lease.expire_time.ToDatetime() > before.ToDatetime()


async def test_a_stream_has_a_seat_and_keeps_it(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world, seats=1)).issue()
    async with stream(suite, world, asked(issued.key)) as held:
        first = await told(held)
        machine = first.granted.machine
        assert first.resume_token.startswith("rs_")
        assert first.granted.machine_secret.startswith("ms_")
        ends = machine.lease.expire_time.ToDatetime(UTC)
        assert ends - datetime.now(UTC) < timedelta(seconds=3.5), "a renewal too late must not outlast the grace"
        for _ in range(4):
            kept = (await told(held, within_s=3.0)).keepalive
            assert kept.epoch == machine.lease.epoch
            assert kept.expire_time.ToDatetime(UTC) >= ends
            ends = kept.expire_time.ToDatetime(UTC)
        assert ends > machine.lease.expire_time.ToDatetime(UTC)
        assert await refusal_of(leased(world, issued.key)) == "MACHINE_LIMIT_EXCEEDED"
        await world.test.release_seat(machine.machine_id, machine.lease.epoch)
        assert await end_of(held) == "SEAT_LOST"
    assert await seats(suite, issued.license.license_id) == (0, 0)


async def test_the_seat_of_a_holder_that_is_gone_is_free_within_the_grace(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world, seats=1)).issue()
    async with stream(suite, world, asked(issued.key)) as held:
        machine = (await told(held)).granted.machine
        await told(held)
    begun = time.monotonic()
    while await refusal_or_ok(world, issued.key) != "OK":
        await asyncio.sleep(0.1)
        assert time.monotonic() - begun < 6.0
    assert time.monotonic() - begun > 2.5, "the grace was not kept"
    told_of = [event["type"] for event in await events(suite, machine.machine_id)]
    assert told_of == ["seat.granted", "seat.expired"]


async def refusal_or_ok(world: World, key: str) -> str:
    try:
        await leased(world, key)
    except Exception as error:  # noqa: BLE001 - told by its reason
        return getattr(error, "reason", type(error).__name__)
    return "OK"


async def test_a_later_stream_goes_on_with_the_lease_and_the_older_one_has_lost_it(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world, seats=1)).issue()
    fingerprint = a_fingerprint()
    async with stream(suite, world, asked(issued.key, fingerprint)) as older:
        first = await told(older)
        request = asked(issued.key, fingerprint, resume_token=first.resume_token)
        async with stream(suite, world, request) as newer:
            again = await told(newer)
            assert again.granted.machine.machine_id == first.granted.machine.machine_id
            assert again.granted.machine.lease.epoch == first.granted.machine.lease.epoch
            assert await end_of(older, within_s=3.0) == "SEAT_LOST"
            assert await holds_on(world, again.granted.machine)
    assert [event["type"] for event in await events(suite, first.granted.machine.machine_id)] == ["seat.granted"]
    async with stream(suite, world, request) as third:  # within the grace of the one that was cut
        assert (await told(third)).granted.machine.lease.epoch == first.granted.machine.lease.epoch


async def test_no_stream_goes_on_with_a_lease_that_is_over_or_not_its_own(suite: Suite, world: World) -> None:
    shop = await floating(suite, world)
    issued, other = await shop.issue(), await shop.issue()
    fingerprint = a_fingerprint()
    async with stream(suite, world, asked(issued.key, fingerprint, grace_s=300)) as held:
        first = await told(held)
        token = first.resume_token
        async with stream(suite, world, asked(other.key, resume_token=token)) as elsewhere:
            assert await end_of(elsewhere) == "SEAT_LOST"
    await run_out(suite, first.granted.machine.machine_id)
    for bad, reason in ((token, "SEAT_LOST"), (token + "x", "FIELD_INVALID"), ("rs_", "FIELD_INVALID")):
        async with stream(suite, world, asked(issued.key, fingerprint, resume_token=bad)) as refused:
            assert await end_of(refused) == reason


async def test_an_evicted_stream_ends_at_once(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world, seats=1, acquire="EVICT_OLDEST")).issue()
    async with stream(suite, world, asked(issued.key, grace_s=300)) as held:
        await told(held)
        begun = time.monotonic()
        async with stream(suite, world, asked(issued.key)) as taker:
            assert len((await told(taker)).granted.evicted_machine_ids) == 1
            assert await end_of(held) == "SEAT_LOST"
            assert time.monotonic() - begun < 2.0


async def test_the_vendor_sees_who_holds_seats_and_takes_one_back(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world, seats=2, acquire="QUEUE")).issue()
    license_id = issued.license.license_id
    async with stream(suite, world, asked(issued.key, grace_s=300)) as held:
        machine = (await told(held)).granted.machine
        other = (await leased(world, issued.key)).machine
        await world.test.acquire_seat(key=issued.key, fingerprint=a_fingerprint())
        page = await world.test.machines.page_of_seats(license_id)
        assert {one.machine_id for one in page.machines} == {machine.machine_id, other.machine_id}
        assert (page.seats.taken, page.seats.limit, page.waiting) == (2, 2, 1)
        await run_out(suite, other.machine_id)
        page = await world.test.machines.page_of_seats(license_id)
        assert ([one.machine_id for one in page.machines], page.seats.taken) == ([machine.machine_id], 1)
        gone = (await world.test.machines.evict_seat(machine.machine_id, reason="why")).machine
        assert gone.deactivation_reason == DeactivationReason.EVICTED
        assert await end_of(held, within_s=3.0) == "SEAT_LOST"
    last = (await events(suite, machine.machine_id))[-1]
    assert (last["type"], last["reason"]) == ("seat.evicted", "why")
    fixed = await (await open_shop(world.test, code="OTHER")).issue()
    activated = (await world.test.activate(key=fixed.key, fingerprint=a_fingerprint())).machine
    assert await refusal_of(world.test.machines.evict_seat(activated.machine_id)) == "STATE_TRANSITION_INVALID"
    assert await refusal_of(world.test.machines.page_of_seats("lic_nope")) == "LICENSE_NOT_FOUND"


async def test_a_stream_ends_with_its_license(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world)).issue()
    async with stream(suite, world, asked(issued.key)) as held:
        await told(held)
        await world.test.licenses.suspend(issued.license.license_id)
        assert await end_of(held) == "STATE_TRANSITION_INVALID"


async def test_a_stream_waits_in_the_queue_and_is_granted_the_seat(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world, seats=1, acquire="QUEUE")).issue()
    grant = await leased(world, issued.key)
    async with (
        stream(suite, world, asked(issued.key)) as first,
        stream(suite, world, asked(issued.key)) as second,
    ):
        positions = {(await told(one)).queued.position for one in (first, second)}
        assert positions == {1, 2}
        await world.test.release_seat(grant.machine.machine_id, grant.machine.lease.epoch)
        done, _ = await asyncio.wait(
            {asyncio.create_task(granted(one)) for one in (first, second)}, timeout=5, return_when=asyncio.FIRST_COMPLETED
        )  # fmt: skip
        assert len(done) == 1
        assert await seats(suite, issued.license.license_id) == (1, 1)


async def granted(opened: Stream) -> HoldSeatResponse:
    while True:
        answer = await told(opened, within_s=30.0)
        if answer.HasField("granted"):
            return answer


async def test_refusals_come_as_of_an_acquisition(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world, seats=1)).issue()
    await leased(world, issued.key)
    for request, reason in (
        (asked(issued.key), "MACHINE_LIMIT_EXCEEDED"),
        (asked("NOPE-AAAA-AAAA-AAAA-AAAA"), "LICENSE_NOT_FOUND"),
        (asked(issued.key, grace_s=4), "FIELD_INVALID"),
        (HoldSeatRequest(), "FIELD_INVALID"),
    ):
        async with stream(suite, world, request) as refused:
            assert await end_of(refused) == reason


async def test_a_stream_that_ends_while_others_are_renewed_is_renewed_no_more(suite: Suite, world: World) -> None:
    """One tenant's renewal stands still meanwhile; the other's, which was due with it, would be next."""
    async with suite.world() as other:
        worlds = (world, other)
        machines = [(await leased(one, (await (await floating(suite, one)).issue()).key)).machine for one in worlds]
        ids = [machine.machine_id for machine in machines]
        kept, ended = [machine.lease.expire_time.ToDatetime(UTC) for machine in machines]
        first, second = [
            Hold(
                one.tenant(), machine.license_id, machine.machine_id, machine.lease.epoch, "here", timedelta(minutes=5),
                machine.lease.expire_time.ToDatetime(UTC), asyncio.Event(),
            )
            for one, machine in zip(worlds, machines, strict=True)
        ]  # fmt: skip
        async with suite.admin() as conn:
            await conn.execute("UPDATE machine.beat SET lease_holder = 'here' WHERE machine_id = ANY ($1)", ids)
        db = await machine_db(suite)
        try:
            holds = Holds(db)
            async with holds.renewed():
                with holds.opened(first):
                    row = "SELECT FROM machine.beat WHERE machine_id = $1 FOR UPDATE"
                    async with held(suite, row, ids[0]) as conn, asyncio.timeout(5):
                        with holds.opened(second):
                            holds.ask(first)
                            holds.ask(second)
                            await blocked_backend(conn)
                    for _ in range(2):  # whatever was due together is over with the second
                        async with asyncio.timeout(5):
                            await first.told.wait()
                        first.told.clear()
                        holds.ask(first)
        finally:
            await db.close()
        async with suite.admin() as conn:
            found = await conn.fetch(
                "SELECT machine_id, lease_expires_at FROM machine.beat WHERE machine_id = ANY ($1)", ids
            )
    ends = {row["machine_id"]: row["lease_expires_at"] for row in found}
    assert ends[ids[0]] > kept
    assert ends[ids[1]] == ended


async def test_a_process_that_leaves_says_so_and_the_seat_stays_for_the_grace(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    async with scratch(postgres, migrated=False) as made:
        async with running_suite(OwnRecord(made), tmp_path) as leaving, leaving.world() as world:
            issued = await (await floating(leaving, world, seats=1)).issue()
            request = asked(issued.key, a_fingerprint(), grace_s=60)
            channel = grpc.aio.insecure_channel(leaving.bound.api_addr)  # the suite's own is closed before it leaves
            held: Any = stubs.ActivationServiceStub(channel).HoldSeat(request, metadata=bearer(world.test_key))
            first = await told(held)
            ending = asyncio.create_task(end_of(held, within_s=30.0))
            await asyncio.sleep(0.1)
        assert await ending == "DRAINING"
        await channel.close()
        async with running_suite(OwnRecord(made), tmp_path) as later:
            request.resume_token = first.resume_token
            async with stream(later, world, request) as again:
                assert (await told(again)).granted.machine.lease.epoch == first.granted.machine.lease.epoch
