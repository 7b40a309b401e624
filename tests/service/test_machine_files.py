"""Machines go offline with a file and come back: what the file says, who gets one, and what stands still meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToJson
from lictor import (
    AsyncLictor,
    FileEncrypted,
    InvalidArgument,
    LictorError,
    NotFound,
    PermissionDenied,
    verify_machine_file,
)
from lictor.machine.v1.machine_pb2 import HeartbeatStatus, Machine

from services.machine import app as machine_app
from services.machine.settings import Settings as MachineSettings
from shared.clock import SystemClock
from shared.embedded.postgres import EmbeddedPostgres
from shared.rpc.runtime import Bound, ServeSettings, serve
from tests.helpers.builders import Shop, events, open_shop, unchanged, uuid
from tests.helpers.suite import Suite, World, running_suite
from tests.service.test_machine_activation import refusal_of, set_terms

FINGERPRINT = "6f1ed002ab5595859014ebf0951522d9"
DAY = timedelta(days=1)
FREE = "127.0.0.1:0"


async def machine_in(shop: Shop, fingerprint: Any = FINGERPRINT) -> Machine:
    issued = await shop.issue()
    return (await shop.client.activate(license_id=issued.license.license_id, fingerprint=fingerprint)).machine


async def test_a_machine_file_verifies_and_the_machine_is_offline(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    machine = await machine_in(shop)
    made = await world.test.machines.issue_file(machine.machine_id, fingerprint=FINGERPRINT, ttl=2 * DAY, reason="why")
    keys = MessageToJson(await world.test.signing_keys.public(made.key_set_id))
    found = verify_machine_file(made.file, keys=keys, state=None, fingerprint=FINGERPRINT)
    assert (found.machine_id, found.license_id, found.seq) == (machine.machine_id, machine.license_id, 1)
    assert found.file_id == made.machine_file_id
    assert made.expire_time.ToDatetime(UTC) - made.start_time.ToDatetime(UTC) == 2 * DAY
    assert made.machine.offline_until == made.expire_time
    assert (await world.test.machines.get(machine.machine_id)).offline_until == made.expire_time
    again = await world.test.machines.issue_file(machine.machine_id, fingerprint=FINGERPRINT)
    assert again.seq == 2
    told = [event for event in await events(suite, machine.machine_id) if event["type"] == "machine.checked_out"]
    assert [event["data"]["file_seq"] for event in told] == [1, 2]
    assert told[0]["reason"] == "why"
    assert told[0]["data"]["machine_file_id"] == made.machine_file_id


async def test_a_key_of_the_license_encrypts_the_file(world: World) -> None:
    shop = await open_shop(world.test)
    issued = await shop.issue()
    machine = (await world.test.activate(key=issued.key, fingerprint=FINGERPRINT)).machine
    made = await world.test.machines.issue_file(machine.machine_id, fingerprint=FINGERPRINT, license_key=issued.key)
    keys = MessageToJson(await world.test.signing_keys.public(made.key_set_id))
    given: dict[str, Any] = {"keys": keys, "state": None, "fingerprint": FINGERPRINT}
    with pytest.raises(FileEncrypted):
        verify_machine_file(made.file, **given)
    assert verify_machine_file(made.file, license_key=issued.key, **given).machine_id == machine.machine_id
    other = (await shop.issue()).key
    with pytest.raises(InvalidArgument) as refused:
        await world.test.machines.issue_file(machine.machine_id, fingerprint=FINGERPRINT, license_key=other)
    assert [(v.field, v.reason) for v in refused.value.violations] == [("license_key", "LICENSE_KEY_MISMATCH")]


async def test_a_retry_gets_the_same_file_also_when_it_is_no_longer_to_be_had(world: World) -> None:
    shop = await open_shop(world.test)
    machine = await machine_in(shop)
    given: dict[str, Any] = {"fingerprint": FINGERPRINT, "request_id": uuid()}
    first = await world.test.machines.issue_file(machine.machine_id, **given)
    await world.test.machines.deactivate(machine.machine_id)
    assert (await world.test.machines.issue_file(machine.machine_id, **given)).file == first.file
    assert await refusal_of(world.test.machines.issue_file(machine.machine_id, fingerprint=FINGERPRINT)) == (
        "STATE_TRANSITION_INVALID"
    )


async def test_the_fingerprint_must_be_one_of_the_machine(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    plain = await machine_in(shop)
    several = await machine_in(shop, {"disk": "disk-12345678", "board": "board-12345678"})
    assert (await world.test.machines.issue_file(several.machine_id, fingerprint="board-12345678")).seq == 1
    async with unchanged(suite, world):
        for machine, given in ((plain, "disk-12345678"), (several, FINGERPRINT)):
            with pytest.raises(InvalidArgument) as refused:
                await world.test.machines.issue_file(machine.machine_id, fingerprint=given)
            assert [(v.field, v.reason) for v in refused.value.violations] == [("fingerprint", "FINGERPRINT_MISMATCH")]


async def test_the_license_service_has_the_last_word(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    machine = await machine_in(shop)
    with pytest.raises(InvalidArgument) as refused:
        await world.test.machines.issue_file(machine.machine_id, fingerprint=FINGERPRINT, ttl=timedelta(minutes=5))
    assert [(v.field, v.reason) for v in refused.value.violations] == [("ttl", "TTL_OUT_OF_RANGE")]
    await world.test.policies.update(shop.policy.policy_id, offline_allowed=False)
    async with unchanged(suite, world):
        call = world.test.machines.issue_file(machine.machine_id, fingerprint=FINGERPRINT)
        assert await refusal_of(call) == "OFFLINE_NOT_ALLOWED"
    await world.test.policies.update(shop.policy.policy_id, offline_allowed=True)
    await world.test.licenses.suspend(machine.license_id)
    async with unchanged(suite, world):
        call = world.test.machines.issue_file(machine.machine_id, fingerprint=FINGERPRINT)
        assert await refusal_of(call) == "STATE_TRANSITION_INVALID"


async def test_files_that_are_asked_for_at_once_are_numbered_one_after_the_other(world: World) -> None:
    machine = await machine_in(await open_shop(world.test))

    async def issue() -> int | str:
        try:
            return (await world.test.machines.issue_file(machine.machine_id, fingerprint=FINGERPRINT)).seq
        except LictorError as error:
            return error.reason

    found = await asyncio.gather(*(issue() for _ in range(8)))
    numbers = sorted(one for one in found if isinstance(one, int))
    assert numbers == list(range(1, len(numbers) + 1))
    assert numbers
    assert {one for one in found if isinstance(one, str)} <= {"TRANSACTION_CONFLICT"}


async def test_heartbeats_are_not_due_until_the_file_ends_or_the_machine_is_back(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test, require_heartbeat=True, heartbeat_interval=timedelta(minutes=10))
    machine = await machine_in(shop)
    await world.test.heartbeat(machine.machine_id)
    made = await world.test.machines.issue_file(machine.machine_id, fingerprint=FINGERPRINT, ttl=2 * DAY)
    due = made.machine.heartbeat_deadline.ToDatetime(UTC)
    assert due == made.expire_time.ToDatetime(UTC) + timedelta(minutes=10, seconds=30)
    async with suite.admin() as conn:  # nothing was heard of it for a day
        await conn.execute(
            "UPDATE machine.beat SET last_heartbeat_at = now() - interval '1 day' WHERE machine_id = $1",
            machine.machine_id,
        )
    assert (await world.test.machines.get(machine.machine_id)).heartbeat_status == HeartbeatStatus.ALIVE
    back = (await world.test.machines.return_file(machine.machine_id, reason="why")).machine
    assert not back.HasField("offline_until")
    assert back.heartbeat_status == HeartbeatStatus.ALIVE
    left = back.heartbeat_deadline.ToDatetime(UTC) - datetime.now(UTC)
    assert timedelta(minutes=10) < left <= timedelta(minutes=10, seconds=30)
    assert [event["type"] for event in await events(suite, machine.machine_id)][-2:] == [
        "machine.checked_out", "machine.checked_in",
    ]  # fmt: skip
    assert await refusal_of(world.test.machines.return_file(machine.machine_id)) == "STATE_TRANSITION_INVALID"


async def test_a_dead_machine_gets_no_file(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test, require_heartbeat=True, heartbeat_interval=timedelta(minutes=10))
    machine = await machine_in(shop)
    await world.test.heartbeat(machine.machine_id)
    async with suite.admin() as conn:
        ago = "now() - interval '1 day'"
        await conn.execute(
            f"UPDATE machine.beat SET last_heartbeat_at = {ago} WHERE machine_id = $1", machine.machine_id
        )
        await conn.execute(
            f"UPDATE machine.machine SET heartbeat_from = {ago} WHERE machine_id = $1", machine.machine_id
        )
    call = world.test.machines.issue_file(machine.machine_id, fingerprint=FINGERPRINT)
    assert await refusal_of(call) == "STATE_TRANSITION_INVALID"


@pytest.mark.parametrize("acquire", ["EVICT_OLDEST", "EVICT_DEAD_FIRST"])
async def test_a_machine_that_is_offline_is_not_evicted(suite: Suite, world: World, acquire: str) -> None:
    shop = await open_shop(world.test, max_machines=2)
    await set_terms(suite, shop, floating=True, seat_acquire=acquire)
    license_id = (await shop.issue()).license.license_id
    away, here = [
        (await world.test.activate(license_id=license_id, fingerprint=f"fingerprint-{n}")).machine.machine_id
        for n in range(2)
    ]
    await world.test.machines.issue_file(away, fingerprint="fingerprint-0")
    third = await world.test.activate(license_id=license_id, fingerprint="fingerprint-2")
    assert list(third.evicted_machine_ids) == [here], "though the other is older"
    await world.test.machines.issue_file(third.machine.machine_id, fingerprint="fingerprint-2")
    for take in (world.test.activate, world.test.acquire_seat):
        assert await refusal_of(take(license_id=license_id, fingerprint="fingerprint-3")) == "MACHINE_LIMIT_EXCEEDED"
    await world.test.machines.return_file(away)
    fourth = await world.test.acquire_seat(license_id=license_id, fingerprint="fingerprint-3")
    assert list(fourth.granted.evicted_machine_ids) == [away], "it is back"


async def test_a_publishable_key_proves_the_machine(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    issued = await shop.issue()
    made = await world.test.activate(key=issued.key, fingerprint=FINGERPRINT)
    machine_id = made.machine.machine_id
    shipped = await world.test.api_keys.create(kind="PUBLISHABLE", scopes=["licenses:checkout"])
    async with suite.client(shipped.secret) as client:
        with pytest.raises(PermissionDenied):
            await client.machines.issue_file(machine_id, fingerprint=FINGERPRINT)
        with pytest.raises(PermissionDenied):
            await client.machines.return_file(machine_id)
        secret = made.machine_secret
        file = await client.machines.issue_file(machine_id, fingerprint=FINGERPRINT, machine_secret=secret)
        assert not file.machine.external_id
        assert (await client.machines.return_file(machine_id, machine_secret=secret)).machine.machine_id == machine_id
    with pytest.raises(NotFound):
        await world.live.machines.issue_file(machine_id, fingerprint=FINGERPRINT)


@asynccontextmanager
async def machine_process(suite: Suite, world: World, license_addr: str) -> AsyncGenerator[AsyncLictor]:
    """The machine service by itself, beside a suite; a client of it."""
    own: dict[str, Any] = suite.settings.model_dump(include=set(MachineSettings.model_fields))
    own["license_addr"] = license_addr
    ready, stop = asyncio.get_running_loop().create_future(), asyncio.Event()
    async with machine_app.build(MachineSettings(**own), SystemClock()) as app:
        settings = ServeSettings(FREE, FREE, FREE, lame_duck_s=0.0, drain_s=5.0)
        task = asyncio.create_task(serve(app, settings, SystemClock(), on_ready=ready.set_result, stop=stop))
        bound: Bound = await ready
        async with AsyncLictor(api_key=world.test_key, endpoint=bound.api_addr) as client:
            yield client
        stop.set()
        await task


async def test_a_machine_process_of_its_own_has_files_signed_elsewhere(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    async with running_suite(postgres, tmp_path) as suite, suite.world() as world:
        machine = await machine_in(await open_shop(world.test))
        async with machine_process(suite, world, suite.bound.api_addr) as client:
            made = await client.machines.issue_file(machine.machine_id, fingerprint=FINGERPRINT)
            keys = MessageToJson(await world.test.signing_keys.public(made.key_set_id))
            assert verify_machine_file(made.file, keys=keys, state=None, fingerprint=FINGERPRINT).seq == 1
            await world.test.licenses.suspend(machine.license_id)
            call = client.machines.issue_file(machine.machine_id, fingerprint=FINGERPRINT)
            assert await refusal_of(call) == "STATE_TRANSITION_INVALID"
        async with machine_process(suite, world, "127.0.0.1:1") as client, unchanged(suite, world):
            call = client.machines.issue_file(machine.machine_id, fingerprint=FINGERPRINT, timeout_s=3.0)
            assert await refusal_of(call) == "RECORD_UNREACHABLE"
