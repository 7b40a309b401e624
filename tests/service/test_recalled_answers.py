"""Answers that are given again are those that would be made anew: asked as other languages do, without a token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from lictor import Validation
from lictor.account.v1.account_service_pb2 import WhoAmIRequest
from lictor.common.v1.common_pb2 import (
    Consistency,
    Decision,
    Freshness,
    LicenseSelector,
    MachineIdentity,
    NamedFingerprint,
)
from lictor.license.v1 import validation_service_pb2 as pb
from lictor.machine.v1.activation_service_pb2 import AcquireSeatRequest, ActivateMachineRequest, RenewSeatRequest
from lictor.machine.v1.machine_service_pb2 import (
    DeactivateMachineRequest,
    EvictSeatRequest,
    ResetMachineHeartbeatRequest,
    TransferMachineRequest,
)

from tests.helpers.builders import Shop, ago, ahead, key_with, open_shop, send, shift
from tests.helpers.lease import lease_passes
from tests.helpers.serving import counted
from tests.helpers.suite import Suite, World

RECORD = Consistency(fully_consistent=Consistency.FullyConsistent())
AGAIN = "lictor_validations_again_total"
TIMES = 4
"""The first answer may be a load's, the second is made from memory, the others are given again."""


@dataclass(frozen=True)
class Reader:
    """An application with a key of its own, beside somebody else who has another.

    Who finds no lease asks for one, and nothing is given again to whoever waits. So the other one calls first each time, and
    whatever changes is changed by the other one.
    """

    suite: Suite
    world: World
    key: str

    async def ask(self, request: Any) -> Any:
        await send(self.suite, WhoAmIRequest(), self.world.live_key)
        return await send(self.suite, request, self.key)

    async def again(self, request: pb.ValidateLicenseRequest) -> Sequence[pb.ValidateLicenseResponse]:
        return [await self.ask(request) for _ in range(TIMES)]


@pytest_asyncio.fixture(loop_scope="session", name="reader")
async def _reader(suite: Suite, world: World) -> Reader:
    return Reader(suite, world, await key_with(world.test, "licenses:validate"))


def plain(answer: pb.ValidateLicenseResponse) -> pb.ValidateLicenseResponse:
    """Without what differs from one decision to the next."""
    copy = pb.ValidateLicenseResponse()
    copy.CopyFrom(answer)
    for name in ("decision_id", "evaluated_at", "freshness"):
        copy.decision.ClearField(name)
    return copy


def of_the_record(request: pb.ValidateLicenseRequest) -> pb.ValidateLicenseRequest:
    asked = pb.ValidateLicenseRequest(consistency=RECORD)
    asked.MergeFrom(request)
    return asked


async def activated(world: World, reader: Reader, license_id: str, shown: str) -> str:
    """A machine with a seat of the license, which has sent no heartbeat yet."""
    request = ActivateMachineRequest(
        request_id=str(uuid4()),
        license=LicenseSelector(license_id=license_id),
        identity=MachineIdentity(fingerprint=shown),
        components=[NamedFingerprint(name="cpu", fingerprint="cpu-serial")],
    )
    return (await send(reader.suite, request, world.test_key)).machine.machine_id


async def mixed_lot(world: World, reader: Reader, shop: Shop) -> list[pb.ValidateLicenseRequest]:
    """Licenses in every state, by key and by id, with what is asked of them and their machines, and some that there are not."""
    made = [await shop.issue_in(status) for status in ("active", "suspended", "expired", "revoked", "banned")]
    held = await shop.issue(customer_email="ada@example.com", expire_time=ahead(days=3))
    desk, other = await shop.issue(), await shop.issue()
    machine_id = await activated(world, reader, desk.license.license_id, "fingerprint-1")
    others = await activated(world, reader, other.license.license_id, "fingerprint-2")
    asked = [
        *(Validation(key=one.key) for one in made),
        *(Validation(license_id=one.license.license_id) for one in made),
        Validation(key="NO-SUCH-KEY"),
        Validation(license_id="lic_none"),
        Validation(key=held.key, customer_email="ADA@example.com", product="SHOP"),
        Validation(key=held.key, subject_ref="somebody", product="OTHER", entitlements=["export", "import"]),
        Validation(key=held.key, required_tier="pro", policy_id="pol_other", entitlements=[]),
        *(
            Validation(key=desk.key, fingerprint=shown)
            for shown in ("fingerprint-1", "fingerprint-2", {"cpu": "cpu-serial"})
        ),
        *(Validation(license_id=desk.license.license_id, machine_id=one) for one in (machine_id, others, "mach_none")),
        *(Validation(key=desk.key, machine_id=one, fingerprint="fingerprint-1") for one in (machine_id, others)),
        *(
            Validation(key=desk.key, machine_id=machine_id, components=parts)
            for parts in ({"cpu": "cpu-serial"}, {"cpu": "another-serial"}, {})
        ),
        Validation(key=held.key, fingerprint="fingerprint-1"),
    ]
    return [one.request() for one in asked]


async def test_an_answer_given_again_is_the_records(world: World, reader: Reader) -> None:
    for request in await mixed_lot(world, reader, await open_shop(world.test)):
        await lease_passes()
        expected = plain(await reader.ask(of_the_record(request)))
        answers = await reader.again(request)
        assert [plain(answer) for answer in answers] == [expected] * TIMES
        assert answers[-1].decision.freshness == Freshness.LEASED
        assert len({answer.decision.decision_id for answer in answers}) == TIMES


async def test_a_batch_given_again_is_the_records(world: World, reader: Reader) -> None:
    requests = await mixed_lot(world, reader, await open_shop(world.test))
    await lease_passes()
    whole = pb.BatchValidateLicensesRequest(requests=requests)
    expected = await reader.ask(pb.BatchValidateLicensesRequest(requests=requests, consistency=RECORD))
    decisions: list[Decision] = []
    for _ in range(TIMES):
        answer = await reader.ask(whole)
        assert [plain(one.response) for one in answer.results] == [plain(one.response) for one in expected.results]
        decisions = [one.response.decision for one in answer.results]
        assert len({decision.decision_id for decision in decisions}) == len(requests)
        assert len({decision.evaluated_at.ToNanoseconds() for decision in decisions}) == 1
    assert {decision.freshness for decision in decisions} == {Freshness.LEASED}


@pytest.mark.parametrize("change", ["suspend", "ban_customer", "policy", "product", "tier", "key", "delete"])
async def test_no_answer_outlives_a_change_of_what_it_was_made_of(world: World, reader: Reader, change: str) -> None:
    """Each returns once it holds, so that the very next answer is the new one."""
    client = world.test
    shop = await open_shop(client)
    tier = (
        await client.tiers.create(product_id=shop.product.product_id, slug="pro", display_name="Pro", position=1)
    ).tier
    made = await shop.issue(customer_email="ada@example.com", tier_id=tier.tier_id)
    license_id = made.license.license_id
    request = pb.ValidateLicenseRequest(
        license=LicenseSelector(license_key=made.key), product="SHOP", required_tier="pro"
    )
    for _ in range(3):
        await reader.again(request)
        assert (await reader.ask(request)).code == pb.ValidationCode.VALID
    match change:
        case "suspend":
            await client.licenses.suspend(license_id)
        case "ban_customer":
            await client.customers.ban(made.license.customer_id)
        case "policy":
            await client.policies.update(shop.policy.policy_id, require_user_scope=True)
        case "product":
            await client.products.update(shop.product.product_id, display_name="Another")
        case "tier":
            await client.tiers.update(tier.tier_id, slug="other")
        case "key":
            await client.licenses.rotate_key(license_id)
        case _:
            await client.licenses.delete(license_id)
    answer = await reader.ask(request)
    assert (answer.code == pb.ValidationCode.VALID) == (change == "product")
    assert plain(answer) == plain(await reader.ask(of_the_record(request)))


@pytest.mark.parametrize("asked", ["identity", "machine_id", "components"])
@pytest.mark.parametrize("change", ["deactivate", "transfer", "evict", "reset", "renew"])
async def test_no_answer_outlives_a_change_of_its_machine(
    world: World, reader: Reader, change: str, asked: str
) -> None:
    shop = await open_shop(
        world.test,
        floating=True,
        allow_machine_transfer=True,
        require_heartbeat=True,
        heartbeat_interval=timedelta(days=9),
    )
    made = await shop.issue()
    shown, selector = MachineIdentity(fingerprint="fingerprint-1"), LicenseSelector(license_key=made.key)
    await activated(world, reader, made.license.license_id, "fingerprint-1")
    seat = AcquireSeatRequest(request_id=str(uuid4()), license=selector, identity=shown, ttl=Duration(seconds=3600))
    machine = (await send(reader.suite, seat, world.test_key)).granted.machine
    await lease_passes()
    request = pb.ValidateLicenseRequest(license=selector)
    if asked == "identity":
        request.identity.CopyFrom(shown)
    else:
        request.machine_id = machine.machine_id
    if asked == "components":
        request.components.components.add(name="cpu", fingerprint="cpu-serial")
    for _ in range(3):
        await reader.again(request)
        assert (await reader.ask(request)).code == pb.ValidationCode.VALID
    named: dict[str, Any] = {"request_id": str(uuid4()), "machine_id": machine.machine_id}
    changes: dict[str, Any] = {
        "deactivate": DeactivateMachineRequest(**named),
        "transfer": TransferMachineRequest(**named, identity=MachineIdentity(fingerprint="fingerprint-2")),
        "evict": EvictSeatRequest(**named),
        "reset": ResetMachineHeartbeatRequest(**named),
        "renew": RenewSeatRequest(**named, epoch=machine.lease.epoch, ttl=Duration(seconds=3600)),
    }
    await send(reader.suite, changes[change], world.test_key)
    answer = await reader.ask(request)
    assert (answer.code == pb.ValidationCode.VALID) == (change == "renew")
    if change != "renew":  # which answers need not know of
        assert plain(answer) == plain(await reader.ask(of_the_record(request)))


async def test_no_answer_outlives_its_span(world: World, reader: Reader) -> None:
    """An answer that counts down to an expiry is made anew each time, and one that is far from it is not kept past it."""
    shop = await open_shop(world.test)
    made = await shop.issue(expire_time=ahead(seconds=200))
    request = pb.ValidateLicenseRequest(license=LicenseSelector(license_key=made.key))
    spans = [answer.decision.recheck_after.ToTimedelta() for answer in await reader.again(request)]
    assert len(set(spans)) == TIMES
    assert all(timedelta(seconds=150) < span <= timedelta(seconds=200) for span in spans)
    await shift(reader.suite, "license.license", "license_id", made.license.license_id, expires_at=ago(seconds=1))
    assert (await reader.ask(request)).code == pb.ValidationCode.EXPIRED


async def test_a_caller_who_is_looked_up_anew_is_given_the_same_answers_again(world: World, reader: Reader) -> None:
    """As all are after a moment without a lease: else that moment would cost all answers that are kept."""
    shop = await open_shop(world.test)
    made = await shop.issue()
    request = pb.ValidateLicenseRequest(license=LicenseSelector(license_key=made.key))
    expected = plain((await reader.again(request))[-1])
    before = await counted(reader.suite, AGAIN)
    for _ in range(TIMES):
        await lease_passes()
        await send(reader.suite, WhoAmIRequest(), reader.key)  # who asks for a lease, and is looked up
        assert plain(await send(reader.suite, request, reader.key)) == expected
    assert await counted(reader.suite, AGAIN) > before


async def test_what_one_caller_was_answered_is_not_answered_to_another(world: World, reader: Reader) -> None:
    shop = await open_shop(world.test)
    made = await shop.issue()
    request = pb.ValidateLicenseRequest(license=LicenseSelector(license_key=made.key))
    await reader.again(request)
    assert (await reader.ask(request)).valid
    live = await send(reader.suite, request, world.live_key)
    assert live.code == pb.ValidationCode.NOT_FOUND
    async with reader.suite.world() as other:
        assert (await send(reader.suite, request, other.test_key)).code == pb.ValidationCode.NOT_FOUND
