"""What validations say of processes where a change has made the sum that they know differ from what each machine or user has."""

from __future__ import annotations

from lictor import ValidationResult

from tests.helpers.lease import lease_passes
from tests.helpers.suite import World
from tests.service.test_machine_activation import refusal_of
from tests.service.test_processes import Home, home


async def outcome(world: World, mine: Home) -> ValidationResult:
    await lease_passes()
    return await world.test.validate(key=mine.key)


async def test_a_machine_with_too_many_is_hidden_by_others_that_have_fewer(world: World) -> None:
    mine = await home(world, 2, process_leasing="PER_MACHINE", max_processes=4)
    for n in range(4):
        await world.test.heartbeat_process(mine.machine_id, f"p{n}")
    await world.test.policies.update(mine.shop.policy.policy_id, max_processes=2)
    assert (await outcome(world, mine)).valid
    start = world.test.heartbeat_process(mine.machine_id, "one more")
    assert await refusal_of(start) == "MACHINE_LIMIT_EXCEEDED"
    await world.test.policies.update(mine.shop.policy.policy_id, max_processes=1)
    found = await outcome(world, mine)
    assert (found.valid, [(one.taken, one.limit) for one in found.exceeded]) == (False, [(4, 2)])


async def test_what_a_user_without_a_machine_has_left_running_counts_against_the_others(world: World) -> None:
    mine = await home(world, 1, users=1, process_leasing="PER_USER", max_processes=1)
    await world.test.heartbeat_process(mine.machine_id, "of the one before")
    other = (await mine.shop.issue(customer_email="other@x.test")).license.customer_id
    await world.test.machines.update(mine.machine_id, user_id=other)
    await world.test.heartbeat_process(mine.machine_id, "of the other")
    found = await outcome(world, mine)
    assert (found.valid, [(one.taken, one.limit) for one in found.exceeded]) == (False, [(2, 1)])
    await world.test.heartbeat_process(mine.machine_id, "of the one before", ended=True)
    assert (await outcome(world, mine)).valid
