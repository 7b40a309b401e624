"""How often machines come to a license by what is shipped: what counts, what does not, and who is not counted at all."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import pytest
from lictor import AsyncLictor, LictorError

from tests.helpers.builders import Shop, open_shop, unchanged, uuid
from tests.helpers.credentials import publishable
from tests.helpers.suite import Suite, World
from tests.service.test_machine_activation import a_fingerprint, seats

MINUTE = "activations_per_minute"
DAY = "activations_per_day"


async def limited(suite: Suite, world: World, **limits: int) -> None:
    """The limits of the account; that of calls is out of the way."""
    async with suite.client(suite.operator_key) as operator:
        await operator.accounts.update(world.account_id, limits={"license_calls_per_second": 0, **limits})


async def shop_of(world: World, **terms: Any) -> Shop:
    chosen: dict[str, Any] = {"max_machines": 50, **terms}
    return await open_shop(world.test, **chosen)


async def shipped(suite: Suite, world: World) -> AsyncLictor:
    return suite.client((await publishable(world.test)).secret)


async def refused(call: Awaitable[Any]) -> tuple[str, str]:
    """The limit that refuses the call, and how many it allows."""
    with pytest.raises(LictorError) as caught:
        await call
    assert caught.value.reason == "RATE_LIMITED"
    assert caught.value.retry_after_s
    return caught.value.metadata["limit"], caught.value.metadata["allowed"]


async def test_a_license_takes_so_many_machines_a_minute(suite: Suite, world: World) -> None:
    shop = await shop_of(world)
    issued, other = await shop.issue(), await shop.issue()
    await limited(suite, world, **{MINUTE: 3, DAY: 0})
    async with await shipped(suite, world) as app:
        for _ in range(3):
            await app.activate(key=issued.key, fingerprint=a_fingerprint())
        async with unchanged(suite, world):
            found = await refused(app.activate(key=issued.key, fingerprint=a_fingerprint(), timeout_s=2))
        assert found == (MINUTE, "3")
        await app.activate(key=other.key, fingerprint=a_fingerprint())
    assert await seats(suite, issued.license.license_id) == (3, 3)
    made = await world.test.activate(key=issued.key, fingerprint=a_fingerprint())
    assert made.seats.taken == 4, "the vendor's own key has no such rate"


async def test_twenty_machines_a_day_come_to_a_license_unless_its_account_says_otherwise(
    suite: Suite, world: World
) -> None:
    issued = await (await shop_of(world)).issue()
    await limited(suite, world, activations_per_minute=0)
    async with await shipped(suite, world) as app:
        for _ in range(20):
            await app.activate(key=issued.key, fingerprint=a_fingerprint())
        assert await refused(app.activate(key=issued.key, fingerprint=a_fingerprint(), timeout_s=2)) == (DAY, "20")
    assert await seats(suite, issued.license.license_id) == (20, 20)


async def test_a_license_takes_so_many_machines_a_day_whoever_brings_them(suite: Suite, world: World) -> None:
    issued = await (await shop_of(world)).issue()
    await limited(suite, world, **{MINUTE: 0, DAY: 4})
    key = (await publishable(world.test)).secret
    holder = AsyncLictor(api_key=key, license_key=issued.key, endpoint=suite.bound.api_addr)
    async with suite.client(key) as app, await shipped(suite, world) as another, holder:
        for _ in range(2):
            await app.activate(key=issued.key, fingerprint=a_fingerprint())
        await another.activate(key=issued.key, fingerprint=a_fingerprint())
        await holder.activate(fingerprint=a_fingerprint())
        for client, key_of in ((app, issued.key), (another, issued.key), (holder, None)):
            call = client.activate(key=key_of, fingerprint=a_fingerprint(), timeout_s=2)
            assert await refused(call) == (DAY, "4")
        await limited(suite, world, **{MINUTE: 0, DAY: 0})
        for _ in range(6):
            await app.activate(key=issued.key, fingerprint=a_fingerprint())


async def test_a_machine_that_has_its_seat_and_a_repeat_cost_nothing(suite: Suite, world: World) -> None:
    issued = await (await shop_of(world)).issue()
    await limited(suite, world, **{MINUTE: 2, DAY: 2})
    async with await shipped(suite, world) as app:
        mine, request_id = a_fingerprint(), uuid()
        made = await app.activate(key=issued.key, fingerprint=mine, request_id=request_id)
        for _ in range(5):
            again = await app.activate(key=issued.key, fingerprint=mine)
            assert (again.already_active, again.machine_secret) == (True, made.machine_secret)
            repeated = await app.activate(key=issued.key, fingerprint=mine, request_id=request_id)
            assert not repeated.already_active
        await app.activate(key=issued.key, fingerprint=a_fingerprint())
        await refused(app.activate(key=issued.key, fingerprint=a_fingerprint(), timeout_s=2))
        assert (await app.activate(key=issued.key, fingerprint=mine)).already_active, "though the rate is used up"


async def test_a_dead_machine_takes_its_own_seat_again_for_nothing(suite: Suite, world: World) -> None:
    shop = await shop_of(world, require_heartbeat=True, heartbeat_cull="KEEP_DEAD")
    issued = await shop.issue()
    await limited(suite, world, **{MINUTE: 1, DAY: 1})
    async with await shipped(suite, world) as app:
        mine = a_fingerprint()
        made = await app.activate(key=issued.key, fingerprint=mine)
        await app.heartbeat(made.machine.machine_id, machine_secret=made.machine_secret)
        async with suite.admin() as conn:
            for column in ("last_heartbeat_at", "heartbeat_from"):
                table = "beat" if column == "last_heartbeat_at" else "machine"
                await conn.execute(
                    f"UPDATE machine.{table} SET {column} = {column} - interval '30 days' WHERE machine_id = $1",
                    made.machine.machine_id,
                )
        again = await app.activate(key=issued.key, fingerprint=mine)
        assert (again.already_active, again.machine.generation) == (False, 2)
    assert await seats(suite, issued.license.license_id) == (1, 1)


async def test_who_finds_no_seat_is_counted(suite: Suite, world: World) -> None:
    issued = await (await shop_of(world, max_machines=1)).issue()
    await limited(suite, world, **{MINUTE: 3, DAY: 0})
    async with await shipped(suite, world) as app:
        await app.activate(key=issued.key, fingerprint=a_fingerprint())
        for _ in range(2):
            with pytest.raises(LictorError) as caught:
                await app.activate(key=issued.key, fingerprint=a_fingerprint())
            assert caught.value.reason == "MACHINE_LIMIT_EXCEEDED"
        async with unchanged(suite, world):
            assert await refused(app.activate(key=issued.key, fingerprint=a_fingerprint(), timeout_s=2)) == (
                MINUTE,
                "3",
            )


async def test_what_is_refused_before_the_seats_is_not_counted(suite: Suite, world: World) -> None:
    issued = await (await shop_of(world)).issue()
    await limited(suite, world, **{MINUTE: 1, DAY: 1})
    await world.test.licenses.suspend(issued.license.license_id)
    async with await shipped(suite, world) as app:
        for _ in range(3):
            with pytest.raises(LictorError) as caught:
                await app.activate(key=issued.key, fingerprint=a_fingerprint())
            assert caught.value.reason == "STATE_TRANSITION_INVALID"
        await world.test.licenses.reinstate(issued.license.license_id)
        await app.activate(key=issued.key, fingerprint=a_fingerprint())


async def test_a_seat_that_is_passed_on_counts(suite: Suite, world: World) -> None:
    issued = await (await shop_of(world, allow_machine_transfer=True)).issue()
    await limited(suite, world, **{MINUTE: 0, DAY: 2})
    key = (await publishable(world.test)).secret
    async with AsyncLictor(api_key=key, license_key=issued.key, endpoint=suite.bound.api_addr) as holder:
        made = await holder.activate(fingerprint=a_fingerprint())
        moved = await holder.machines.transfer(made.machine.machine_id, fingerprint=a_fingerprint())
        call = holder.machines.transfer(moved.machine.machine_id, fingerprint=a_fingerprint(), timeout_s=2)
        assert await refused(call) == (DAY, "2")
    await world.test.machines.transfer(moved.machine.machine_id, fingerprint=a_fingerprint())


async def test_leases_are_not_counted(suite: Suite, world: World) -> None:
    issued = await (await shop_of(world, floating=True)).issue()
    await limited(suite, world, **{MINUTE: 1, DAY: 1})
    async with await shipped(suite, world) as app:
        for _ in range(3):
            await app.acquire_seat(key=issued.key, fingerprint=a_fingerprint())
        async with app.hold_seat(key=issued.key, fingerprint=a_fingerprint()) as seat:
            assert seat.grant.seats.taken == 4
        await app.activate(key=issued.key, fingerprint=a_fingerprint())
        await refused(app.activate(key=issued.key, fingerprint=a_fingerprint(), timeout_s=2))
