"""What a customer sees of machines, and does: its own alone, with the client that a portal would use, on both transports."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import pytest_asyncio
from lictor import Lictor, LictorError
from lictor.machine.v1.machine_pb2 import DeactivationReason, Machine, MachineStatus
from lictor.machine.v1.machine_service_pb2 import DeactivateMachineRequest, ListMachinesRequest

from tests.helpers.builders import Shop, events, open_shop, unchanged, uuid
from tests.helpers.credentials import Portal, bearer_of, open_portal, outcome_as
from tests.helpers.suite import Suite, World
from tests.service.test_floating_seats import refusal_of
from tests.service.test_machine_activation import a_fingerprint, seats


@pytest_asyncio.fixture(loop_scope="session")
async def portal(suite: Suite, world: World) -> Portal:
    return await open_portal(suite, world)


async def activated(world: World, license_id: str, **more: Any) -> Machine:
    made = await world.test.activate(
        license_id=license_id, fingerprint=a_fingerprint(), hostname="desk", ip="10.0.0.7", external_id=uuid(),
        labels={"a": "b"}, metadata={"x": 1}, **more,
    )  # fmt: skip
    return made.machine


async def eves_machine(world: World, shop: Shop) -> Machine:
    """Of a license of the same policy that another customer holds."""
    issued = await shop.issue(customer_email="eve@example.com")
    return await activated(world, issued.license.license_id)


async def ids(portal: Portal, **filters: Any) -> set[str]:
    return {machine.machine_id async for machine in portal.client.machines.list(**filters)}


async def test_a_customer_sees_the_machines_of_all_its_licenses_and_no_other(
    suite: Suite, world: World, portal: Portal
) -> None:
    again = await portal.shop.issue(customer_email="ada@example.com")
    elsewhere = await (await open_shop(world.test, code="OTHER")).issue(customer_email="ada@example.com")
    own = [await activated(world, one.license.license_id) for one in (portal.issued, again, elsewhere)]
    gone = await activated(world, portal.license_id)
    await world.test.machines.deactivate(gone.machine_id)
    hers = await eves_machine(world, portal.shop)
    async with suite.world() as stranger:
        theirs = await open_portal(suite, stranger)
        foreign = await activated(stranger, theirs.license_id)
    mine = {machine.machine_id for machine in own}
    assert await ids(portal) == mine | {gone.machine_id}
    assert await ids(portal, page_size=1) == mine | {gone.machine_id}, "page by page"
    assert await ids(portal, status="active") == mine
    assert await ids(portal, license_id=portal.license_id) == {own[0].machine_id, gone.machine_id}
    assert await ids(portal, product_id=own[2].product_id) == {own[2].machine_id}
    assert await ids(portal, license_id=hers.license_id) == set()
    assert await ids(portal, policy_id=hers.policy_id) == {own[0].machine_id, own[1].machine_id, gone.machine_id}
    assert await ids(portal, license_id=foreign.license_id) == set()
    shown = await portal.client.machines.get(own[0].machine_id)
    assert (shown.hostname, shown.license_id) == ("desk", portal.license_id)
    assert (shown.external_id, shown.ip, dict(shown.labels), shown.metadata.fields) == ("", "", {}, {})
    for other in (hers, foreign):
        async with unchanged(suite, world):
            assert await refusal_of(portal.client.machines.get(other.machine_id)) == "MACHINE_NOT_FOUND"
            assert await refusal_of(portal.client.machines.get(external_id=other.external_id)) == "MACHINE_NOT_FOUND"
            assert await refusal_of(portal.client.machines.deactivate(other.machine_id)) == "MACHINE_NOT_FOUND"


async def test_a_page_of_one_customer_is_none_of_another(suite: Suite, world: World, portal: Portal) -> None:
    for _ in range(2):
        await activated(world, portal.license_id)
    page = await portal.client.machines.page(page_size=1)
    assert page.next_page_token
    eve = await open_portal(suite, world, code="EVES", email="eve@example.com")
    await activated(world, eve.license_id)
    request = ListMachinesRequest(page_size=1, page_token=page.next_page_token)
    assert await outcome_as(suite, request, bearer_of(portal.token)) == "OK"
    assert await outcome_as(suite, request, bearer_of(eve.token)) == "PAGE_TOKEN_INVALID"


async def test_a_freed_seat_is_free_everywhere_once_the_call_returns(
    suite: Suite, world: World, portal: Portal
) -> None:
    fingerprint = a_fingerprint()
    made = await world.test.activate(license_id=portal.license_id, fingerprint=fingerprint)
    validate: dict[str, Any] = {"license_id": portal.license_id, "fingerprint": fingerprint}
    assert (await world.test.validate(**validate)).machine_id == made.machine.machine_id
    request_id = uuid()
    freed = await portal.client.machines.deactivate(made.machine.machine_id, reason="sold", request_id=request_id)
    assert freed.machine.status == MachineStatus.deactivated
    assert freed.machine.deactivation_reason == DeactivationReason.CUSTOMER
    answer = await world.test.validate(**validate)
    assert answer.code == "NO_MACHINE"
    assert await seats(suite, portal.license_id) == (0, 0)
    told = (await events(suite, made.machine.machine_id))[-1]
    assert (told["type"], told["actor"], told["reason"]) == ("machine.deactivated", portal.session_id, "sold")
    async with unchanged(suite, world):
        again = await portal.client.machines.deactivate(made.machine.machine_id, reason="sold", request_id=request_id)
        assert again.machine == freed.machine
        eve = DeactivateMachineRequest(machine_id=made.machine.machine_id, reason="sold", request_id=request_id)
        assert (
            await refusal_of(portal.client.machines.deactivate(made.machine.machine_id)) == "STATE_TRANSITION_INVALID"
        )
    other = await open_portal(suite, world, code="EVES", email="eve@example.com")
    assert await outcome_as(suite, eve, bearer_of(other.token)) == "MACHINE_NOT_FOUND", "not the stored answer"


async def test_a_protected_policy_leaves_freeing_to_the_vendor(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test, max_machines=2, protected=True)
    issued = await shop.issue(customer_email="ada@example.com")
    machine = await activated(world, issued.license.license_id)
    session = await world.test.customers.create_session(issued.license.customer_id)
    async with suite.client(session.token) as customer:
        assert [one.machine_id async for one in customer.machines.list()] == [machine.machine_id], "it is shown"
        async with unchanged(suite, world):
            assert await refusal_of(customer.machines.deactivate(machine.machine_id)) == "CALLER_NOT_ALLOWED"
    await world.test.machines.deactivate(machine.machine_id)


async def test_a_customer_frees_machines_as_often_as_its_policy_says(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test, max_machines=5, max_transfers=1)
    issued = await shop.issue(customer_email="ada@example.com")
    first, second = [await activated(world, issued.license.license_id) for _ in range(2)]
    session = await world.test.customers.create_session(issued.license.customer_id)
    async with suite.client(session.token) as customer:
        await customer.machines.deactivate(first.machine_id)
        async with unchanged(suite, world):
            assert await refusal_of(customer.machines.deactivate(second.machine_id)) == "TRANSFER_LIMIT_EXCEEDED"


async def test_a_license_that_is_given_away_takes_its_machines_along(
    suite: Suite, world: World, portal: Portal
) -> None:
    machine = await activated(world, portal.license_id)
    await world.test.licenses.transfer(portal.license_id, customer_email="eve@example.com")
    assert await ids(portal) == set()
    assert await refusal_of(portal.client.machines.get(machine.machine_id)) == "MACHINE_NOT_FOUND"
    assert await refusal_of(portal.client.machines.deactivate(machine.machine_id)) == "MACHINE_NOT_FOUND"
    held = await world.test.licenses.get(portal.license_id)
    session = await world.test.customers.create_session(held.customer_id)
    async with suite.client(session.token) as eve:
        assert [one.machine_id async for one in eve.machines.list()] == [machine.machine_id]


async def test_the_holder_of_a_leased_seat_that_its_customer_frees_has_lost_it(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test, max_machines=1, floating=True)
    issued = await shop.issue(customer_email="ada@example.com")
    held = (await world.test.acquire_seat(key=issued.key, fingerprint=a_fingerprint())).granted
    session = await world.test.customers.create_session(issued.license.customer_id)
    async with suite.client(session.token) as customer:
        await customer.machines.deactivate(held.machine.machine_id)
    renewal = world.test.renew_seat(held.machine.machine_id, held.machine.lease.epoch)
    assert await refusal_of(renewal) == "SEAT_LOST"
    assert (await world.test.acquire_seat(key=issued.key, fingerprint=a_fingerprint())).HasField("granted")


async def test_the_blocking_client_does_the_same(suite: Suite, world: World, portal: Portal) -> None:
    own, hers = await activated(world, portal.license_id), await eves_machine(world, portal.shop)

    def in_a_portal() -> None:
        with Lictor(api_key=portal.token, endpoint=suite.bound.api_addr) as customer:
            assert [machine.machine_id for machine in customer.machines.list()] == [own.machine_id]
            with pytest.raises(LictorError) as caught:
                customer.machines.deactivate(hers.machine_id)
            assert caught.value.reason == "MACHINE_NOT_FOUND"
            freed = customer.machines.deactivate(own.machine_id)
            assert freed.machine.deactivation_reason == DeactivationReason.CUSTOMER

    await asyncio.to_thread(in_a_portal)
