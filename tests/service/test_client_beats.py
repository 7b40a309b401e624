"""`client.beats`: heartbeats while a block runs, with either client."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from lictor import AsyncLictor, Lictor, LictorError
from lictor._core import requests_beats

from tests.helpers.serving import until
from tests.helpers.suite import Suite, World
from tests.service.test_machine_activation import a_fingerprint

pytestmark = pytest.mark.usefixtures("hurried")


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred heartbeats in an interval, which is a minute: shorter there is none."""
    monkeypatch.setattr(requests_beats, "SHARE", (0.01, 0.012))


async def a_machine(world: World) -> str:
    product = (await world.test.products.create(code="BEATS", display_name="Beats")).product
    policy = await world.test.policies.create(
        product_id=product.product_id,
        display_name="Beating",
        max_machines=1,
        require_heartbeat=True,
        heartbeat_interval=timedelta(minutes=1),
    )
    issued = await world.test.licenses.create(policy_id=policy.policy.policy_id)
    return (await world.test.activate(key=issued.key, fingerprint=a_fingerprint())).machine.machine_id


async def last_beat(client: AsyncLictor, machine_id: str) -> float:
    machine = await client.machines.get(machine_id)
    return machine.last_heartbeat_time.ToDatetime().timestamp()


async def test_it_beats_while_the_block_runs_and_no_longer(world: World) -> None:
    machine_id = await a_machine(world)
    async with world.test.beats(machine_id) as beats:
        first = await last_beat(world.test, machine_id)

        async def beaten() -> bool:
            return await last_beat(world.test, machine_id) > first

        await until(beaten, 10.0)
        assert not beats.lost
    ended = await last_beat(world.test, machine_id)
    await asyncio.sleep(2)
    assert await last_beat(world.test, machine_id) == ended


async def test_a_block_learns_that_its_machine_is_none_any_more(world: World) -> None:
    machine_id = await a_machine(world)
    async with world.test.beats(machine_id) as beats:
        await world.test.machines.deactivate(machine_id)
        async with asyncio.timeout(10):
            await beats.wait_lost()
        assert beats.lost
        assert isinstance(beats.error, LictorError)
        assert beats.error.reason in {"MACHINE_NOT_FOUND", "STATE_TRANSITION_INVALID"}
    with pytest.raises(LictorError):
        async with world.test.beats(machine_id):
            raise AssertionError("it beats for a machine that there is not")


async def test_a_blocking_client_beats_too(suite: Suite, world: World) -> None:
    machine_id = await a_machine(world)

    def block() -> tuple[bool, bool]:
        with (
            Lictor(api_key=world.test_key, endpoint=suite.bound.api_addr) as client,
            client.beats(machine_id) as beats,
        ):
            quiet = beats.wait_lost(1.0)
            client.machines.deactivate(machine_id)
            return quiet, beats.wait_lost(10.0)

    assert await asyncio.to_thread(block) == (False, True)
