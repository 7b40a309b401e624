"""What a machine file does to seats and to those who look after them, and that no seat is leased and has a file."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from lictor import LictorError
from lictor.machine.v1.machine_pb2 import HeartbeatStatus

from tests.helpers.builders import events, open_shop, shift, unchanged
from tests.helpers.machine_workers import looking
from tests.helpers.suite import Suite, World
from tests.service.test_hold_seat import asked, end_of, stream
from tests.service.test_machine_activation import refusal_of
from tests.service.test_machine_files import DAY, FINGERPRINT, machine_in


async def test_the_worker_leaves_a_machine_alone_until_its_file_ends(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test, require_heartbeat=True, heartbeat_interval=timedelta(minutes=1))
    machine = await machine_in(shop)
    await world.test.heartbeat(machine.machine_id)
    await world.test.machines.issue_file(machine.machine_id, fingerprint=FINGERPRINT)

    async def silent_for_a_day(**more: datetime) -> list[str]:
        before = datetime.now(UTC) - DAY
        await shift(suite, "machine.beat", "machine_id", machine.machine_id, last_heartbeat_at=before)
        await shift(suite, "machine.machine", "machine_id", machine.machine_id, heartbeat_from=before, **more)
        async with looking(suite) as looks:
            await looks.settle()
        return [event["type"].removeprefix("machine.") for event in await events(suite, machine.machine_id)]

    assert await silent_for_a_day() == ["activated", "heartbeat.started", "checked_out"]
    assert (await world.test.heartbeat(machine.machine_id)).heartbeat.status == HeartbeatStatus.ALIVE
    told = await silent_for_a_day(offline_until=datetime.now(UTC) - timedelta(hours=1))
    assert told[-2:] == ["heartbeat.dead", "deactivated"]


async def test_a_seat_is_leased_or_has_a_file(suite: Suite, world: World) -> None:
    issued = await (await open_shop(world.test, floating=True)).issue()
    grant = (await world.test.acquire_seat(key=issued.key, fingerprint=FINGERPRINT)).granted
    leased = grant.machine
    async with unchanged(suite, world):
        call = world.test.machines.issue_file(leased.machine_id, fingerprint=FINGERPRINT)
        assert await refusal_of(call) == "OFFLINE_NOT_ALLOWED"
    await world.test.release_seat(leased.machine_id, leased.lease.epoch)
    machine_id = (await world.test.activate(key=issued.key, fingerprint=FINGERPRINT)).machine.machine_id
    await world.test.machines.issue_file(machine_id, fingerprint=FINGERPRINT)
    async with unchanged(suite, world):
        call = world.test.acquire_seat(key=issued.key, fingerprint=FINGERPRINT)
        assert await refusal_of(call) == "STATE_TRANSITION_INVALID"
        async with stream(suite, world, asked(issued.key, fingerprint=FINGERPRINT)) as held:
            assert await end_of(held) == "STATE_TRANSITION_INVALID"
    await world.test.machines.return_file(machine_id)
    again = (await world.test.acquire_seat(key=issued.key, fingerprint=FINGERPRINT)).granted
    assert (again.machine.machine_id, again.taken_over) == (machine_id, True)


async def test_who_leases_while_a_file_is_signed_gets_no_file(suite: Suite, world: World) -> None:
    """Or the other way round: never both."""
    issued = await (await open_shop(world.test, max_machines=8, floating=True)).issue()
    await world.test.signing_keys.rotate(issued.license.product_id)
    for n in range(8):
        fingerprint = f"fingerprint-{n}"
        machine = (await world.test.activate(key=issued.key, fingerprint=fingerprint)).machine
        found = await asyncio.gather(
            world.test.machines.issue_file(machine.machine_id, fingerprint=fingerprint),
            world.test.acquire_seat(key=issued.key, fingerprint=fingerprint),
            return_exceptions=True,
        )
        refused = [one for one in found if isinstance(one, LictorError)]
        assert len(refused) == 1, found
        assert refused[0].reason in {"OFFLINE_NOT_ALLOWED", "STATE_TRANSITION_INVALID"}
        now = await world.test.machines.get(machine.machine_id)
        assert now.HasField("lease") != now.HasField("offline_until")
