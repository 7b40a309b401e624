"""Validations on machines: each code at its place, from memory as from the record, and never from before a change."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from lictor import Validation
from lictor.common.v1.common_pb2 import Consistency, Freshness, MachineIdentity, WorkloadIdentity
from lictor.license.v1 import validation_service_pb2 as pb

from tests.helpers.builders import Shop, ago, ahead, open_shop, refused, send
from tests.helpers.machine_rows import add_machine, change, deactivate
from tests.helpers.suite import Suite, World

RECORD = Consistency(fully_consistent=Consistency.FullyConsistent())
PRINT, OTHER = "print-0001", "print-0002"
SET = {"machine_id": "id-00000001", "mac": "mac-00000001", "disk": "disk-0000001"}
TIMES = 4
POLICY = "license.policy"


def plain(answer: pb.ValidateLicenseResponse) -> pb.ValidateLicenseResponse:
    """Without what differs from one decision to the next."""
    copy = pb.ValidateLicenseResponse()
    copy.CopyFrom(answer)
    for name in ("decision_id", "evaluated_at", "freshness", "recheck_after"):
        copy.decision.ClearField(name)
    return copy


async def codes(suite: Suite, world: World, validation: Validation) -> list[str]:
    """All codes: at the record, then from memory, from a batch, and explained, which all say the same."""
    request = validation.request()
    recorded = pb.ValidateLicenseRequest(consistency=RECORD)
    recorded.MergeFrom(request)
    expected = plain(await send(suite, recorded, world.test_key))
    answers = [await send(suite, request, world.test_key) for _ in range(TIMES)]
    assert [plain(answer) for answer in answers] == [expected] * TIMES
    assert answers[-1].decision.freshness == Freshness.LEASED
    batch = pb.BatchValidateLicensesRequest(requests=[request, Validation(key="NO-SUCH-KEY").request()])
    first = (await send(suite, batch, world.test_key)).results[0].response
    assert plain(first) == expected
    told = await send(suite, pb.ExplainValidationRequest(validation=request), world.test_key)
    assert plain(told.verdict) == expected
    failed = [check.code for check in told.checks if check.outcome != pb.ExplainedCheck.PASSED]
    assert sorted(failed) == sorted(code for code in expected.all_codes if code != pb.ValidationCode.VALID)
    assert all(check.hint for check in told.checks if check.outcome != pb.ExplainedCheck.PASSED)
    return [pb.ValidationCode.Code.Name(code) for code in expected.all_codes]


async def stocked(world: World, **terms: Any) -> tuple[Shop, str, Any]:
    shop = await open_shop(world.test, **terms)
    made = await shop.issue()
    return shop, made.key, made.license


async def test_a_machine_is_known_by_its_fingerprint(suite: Suite, world: World) -> None:
    _, key, license_ = await stocked(world, require_fingerprint=True)
    shown = Validation(key=key, fingerprint=PRINT)
    assert await codes(suite, world, Validation(key=key)) == ["NO_MACHINE", "FINGERPRINT_SCOPE_REQUIRED"]
    assert await codes(suite, world, shown) == ["NO_MACHINE", "FINGERPRINT_NOT_FOUND"]
    machine_id = await add_machine(suite, world.tenant(), license_, PRINT)
    assert await codes(suite, world, Validation(key=key)) == ["FINGERPRINT_SCOPE_REQUIRED"]
    assert await codes(suite, world, shown) == ["VALID"]
    assert await codes(suite, world, Validation(key=key, fingerprint=OTHER)) == ["FINGERPRINT_NOT_FOUND"]
    assert await codes(suite, world, Validation(key=key, fingerprint={})) == ["FINGERPRINT_SCOPE_EMPTY"]
    assert await codes(suite, world, Validation(license_id=license_.license_id, machine_id=machine_id)) == [
        "FINGERPRINT_SCOPE_REQUIRED"
    ]
    result = await world.test.validate(key=key, fingerprint=PRINT)
    assert (result.machine_id, result.heartbeat_status) == (machine_id, "NOT_STARTED")
    assert result.seats is not None
    assert (result.seats.machines, result.seats.max_machines, result.exceeded) == (1, 2, ())
    await deactivate(suite, machine_id)
    assert await codes(suite, world, shown) == ["NO_MACHINE", "FINGERPRINT_NOT_FOUND"]


async def test_a_machine_is_of_its_license_account_and_mode(suite: Suite, world: World) -> None:
    shop, key, license_ = await stocked(world)
    other = await shop.issue()
    machine_id = await add_machine(suite, world.tenant(), license_, PRINT)
    await add_machine(suite, world.tenant(), other.license, OTHER)
    assert await codes(suite, world, Validation(key=key, machine_id=machine_id)) == ["VALID"]
    assert await codes(suite, world, Validation(key=key, machine_id=machine_id, fingerprint=PRINT)) == ["VALID"]
    asked = Validation(key=key, machine_id=machine_id, fingerprint=OTHER)
    assert await codes(suite, world, asked) == ["FINGERPRINT_NOT_FOUND"]
    asked = Validation(key=other.key, machine_id=machine_id, fingerprint=OTHER)
    assert await codes(suite, world, asked) == ["MACHINE_SCOPE_MISMATCH"]
    live = await (await open_shop(world.live)).issue()
    await add_machine(suite, world.tenant(), license_, "print-0003")
    result = await world.live.validate(key=live.key, fingerprint="print-0003", machine_id=machine_id)
    assert result.all_codes == ("NO_MACHINE", "MACHINE_SCOPE_MISMATCH", "FINGERPRINT_NOT_FOUND")


@pytest.mark.parametrize(("rule", "needed"), [("MATCH_ANY", 1), ("MATCH_TWO", 2), ("MATCH_MOST", 2), ("MATCH_ALL", 3)])
async def test_a_set_is_met_by_the_rule_of_the_policy(suite: Suite, world: World, rule: str, needed: int) -> None:
    shop, key, license_ = await stocked(world)
    await change(suite, POLICY, "policy_id", shop.policy.policy_id, machine_matching=rule, component_matching=rule)
    machine_id = await add_machine(suite, world.tenant(), license_, SET, components=SET)
    await add_machine(suite, world.tenant(), license_, {**SET, "mac": "mac-00000002", "disk": "disk-0000002"})
    for common in range(len(SET) + 1):
        asked = changed(SET, common)
        met = common >= needed
        expected = ["VALID"] if met else ["FINGERPRINT_NOT_FOUND"]
        assert await codes(suite, world, Validation(key=key, fingerprint=asked)) == expected
        expected = ["VALID"] if met else ["COMPONENTS_SCOPE_MISMATCH"]
        assert await codes(suite, world, Validation(key=key, machine_id=machine_id, components=asked)) == expected
    assert (await world.test.validate(key=key, fingerprint=SET)).machine_id == machine_id


def changed(shown: Mapping[str, str], common: int) -> dict[str, str]:
    return {name: value if n < common else f"{value}-x" for n, (name, value) in enumerate(shown.items())}


async def test_scopes_that_a_policy_requires(suite: Suite, world: World) -> None:
    shop, key, license_ = await stocked(world)
    machine_id = await add_machine(suite, world.tenant(), license_, PRINT, components={"dongle": "dongle-0001"})
    policy_id = shop.policy.policy_id
    await change(suite, POLICY, "policy_id", policy_id, require_machine_scope=True, require_components_scope=True)
    assert await codes(suite, world, Validation(key=key, fingerprint=PRINT)) == [
        "MACHINE_SCOPE_REQUIRED",
        "COMPONENTS_SCOPE_REQUIRED",
    ]
    asked = Validation(key=key, machine_id=machine_id, components={})
    assert await codes(suite, world, asked) == ["COMPONENTS_SCOPE_EMPTY"]
    asked = Validation(key=key, machine_id=machine_id, components={"dongle": "dongle-0001"})
    assert await codes(suite, world, asked) == ["VALID"]
    asked = Validation(key=key, machine_id=machine_id, components={"other": "dongle-0001"})
    assert await codes(suite, world, asked) == ["COMPONENTS_SCOPE_MISMATCH"]
    await world.test.policies.update(policy_id, floating=True)
    await deactivate(suite, machine_id)
    assert "NO_MACHINES" in await codes(suite, world, asked)


async def test_heartbeats(suite: Suite, world: World) -> None:
    terms: dict[str, Any] = {"require_heartbeat": True, "heartbeat_interval": timedelta(seconds=60)}
    _, key, license_ = await stocked(world, **terms)
    machine_id = await add_machine(suite, world.tenant(), license_, PRINT)
    asked = Validation(key=key, fingerprint=PRINT)
    assert await codes(suite, world, asked) == ["HEARTBEAT_NOT_STARTED"]
    began: dict[str, Any] = {"heartbeat_status": "ALIVE", "heartbeat_from": ago(hours=1)}
    await change(suite, "machine.machine", "machine_id", machine_id, **began)
    assert await codes(suite, world, asked) == ["HEARTBEAT_DEAD"]
    await change(suite, "machine.machine", "machine_id", machine_id, offline_until=ahead(hours=1))
    assert await codes(suite, world, asked) == ["VALID"]
    await change(suite, "machine.machine", "machine_id", machine_id, offline_until=None, heartbeat_status="DEAD")
    assert await codes(suite, world, asked) == ["HEARTBEAT_DEAD"]


async def test_nobody_is_told_of_a_death_that_a_heartbeat_has_undone(suite: Suite, world: World) -> None:
    """Heartbeats are in no log. What memory has from before the deadline is read again after it."""
    terms: dict[str, Any] = {"require_heartbeat": True, "heartbeat_interval": timedelta(seconds=60)}
    _, key, license_ = await stocked(world, **terms)
    almost = ago(seconds=87)
    machine_id = await add_machine(
        suite,
        world.tenant(),
        license_,
        PRINT,
        last_heartbeat_at=almost,
        heartbeat_status="ALIVE",
        heartbeat_from=almost,
    )
    request = Validation(key=key, fingerprint=PRINT).request()
    [*_, answer] = [await send(suite, request, world.test_key) for _ in range(TIMES)]
    assert answer.decision.freshness == Freshness.LEASED
    assert answer.heartbeat_status == pb.MachineHeartbeat.ALIVE
    deadline = answer.decision.valid_until.ToDatetime(tzinfo=almost.tzinfo)
    assert deadline == almost + timedelta(seconds=90)
    async with suite.admin() as conn:  # silently, as a batch of heartbeats
        await conn.execute(
            "UPDATE machine.beat SET last_heartbeat_at = $2 WHERE machine_id = $1", machine_id, ago(seconds=80)
        )
    while (answer := await send(suite, request, world.test_key)).decision.valid_until.ToDatetime(
        tzinfo=almost.tzinfo
    ) == deadline:
        assert answer.code == pb.ValidationCode.VALID
        assert answer.decision.evaluated_at.ToDatetime(tzinfo=almost.tzinfo) < deadline
    assert answer.code == pb.ValidationCode.VALID
    assert answer.decision.freshness == Freshness.RECORD


async def test_a_lease_that_is_not_renewed_is_over(suite: Suite, world: World) -> None:
    _, key, license_ = await stocked(world, floating=True)
    lease: dict[str, Any] = {"lease_epoch": 1, "lease_expires_at": ago(seconds=1)}
    machine_id = await add_machine(suite, world.tenant(), license_, PRINT, **lease)
    asked = Validation(key=key, fingerprint=PRINT)
    assert await codes(suite, world, asked) == ["HEARTBEAT_DEAD"]
    result = await world.test.validate(key=key, fingerprint=PRINT)
    assert (result.heartbeat_status, result.detail) == ("DEAD", "The seat of the machine was not renewed in time.")
    async with suite.admin() as conn:
        beat = "UPDATE machine.beat SET lease_expires_at = $2 WHERE machine_id = $1"
        await conn.execute(beat, machine_id, ahead(hours=1))
    await change(suite, "machine.machine", "machine_id", machine_id, lease_epoch=2)
    assert await codes(suite, world, asked) == ["VALID"]


@pytest.mark.parametrize("overage", ["NO_OVERAGE", "ALLOW_2X"])
async def test_limits_and_their_overage(suite: Suite, world: World, overage: str) -> None:
    shop, key, license_ = await stocked(world, overage_strategy=overage)
    more: dict[str, Any] = {"cores": 2, "memory_bytes": 2**40, "disk_bytes": 2**40}
    await add_machine(suite, world.tenant(), license_, PRINT, **more, user_id="cus_1")
    await add_machine(suite, world.tenant(), license_, OTHER, **more, user_id="cus_2")
    assert await codes(suite, world, Validation(key=key)) == ["VALID"]
    small: dict[str, Any] = {
        "max_machines": 1,
        "max_users": 1,
        "max_cores": 2,
        "max_memory_bytes": 2**40,
        "max_disk_bytes": 2**40,
    }
    await change(suite, POLICY, "policy_id", shop.policy.policy_id, **small)
    exceeded = [
        "TOO_MANY_USERS", "MACHINE_LIMIT_EXCEEDED", "TOO_MANY_CORES", "TOO_MUCH_MEMORY", "TOO_MUCH_DISK",
    ]  # fmt: skip
    assert await codes(suite, world, Validation(key=key)) == exceeded
    result = await world.test.validate(key=key, fingerprint=PRINT)
    assert (result.valid, result.code) == (overage == "ALLOW_2X", "TOO_MANY_USERS")
    factor = 2 if overage == "ALLOW_2X" else 1
    assert [(one.taken, one.limit, one.most) for one in result.exceeded][:2] == [(2, 1, factor), (2, 1, factor)]
    await change(suite, POLICY, "policy_id", shop.policy.policy_id, strict=False)
    assert await codes(suite, world, Validation(key=key)) == ["VALID"]


async def test_the_user_of_a_machine(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    made = await shop.issue(customer_email="ada@example.com")
    eve = (await shop.issue(customer_email="eve@example.com")).license.customer_id
    await add_machine(suite, world.tenant(), made.license, PRINT, user_id=eve)
    await add_machine(suite, world.tenant(), made.license, OTHER)
    for shown, email, expected in (
        (PRINT, "eve@example.com", "VALID"),
        (PRINT, "ada@example.com", "USER_SCOPE_MISMATCH"),
        (OTHER, "ada@example.com", "VALID"),
        (OTHER, "eve@example.com", "USER_SCOPE_MISMATCH"),
    ):
        assert await codes(suite, world, Validation(key=made.key, fingerprint=shown, customer_email=email)) == [
            expected
        ]
    assert await codes(suite, world, Validation(key=made.key, fingerprint=PRINT, customer_id=eve)) == ["VALID"]


async def test_an_expiry_that_counts_from_the_first_machine(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    made = await shop.issue()
    await change(suite, POLICY, "policy_id", shop.policy.policy_id, expiration_basis="FROM_FIRST_ACTIVATION")
    await change(
        suite, "license.license", "license_id", made.license.license_id, expires_at=None, expiry_anchored_at=None
    )
    assert (await world.test.validate(key=made.key)).expire_time is None
    activated = ago(days=29)
    machine_id = await add_machine(suite, world.tenant(), made.license, PRINT, activated_at=activated)
    assert (await world.test.validate(key=made.key)).expire_time == activated + timedelta(days=30)
    await deactivate(suite, machine_id)
    assert (await world.test.validate(key=made.key)).expire_time == activated + timedelta(days=30)
    await change(suite, "machine.seat", "license_id", made.license.license_id, first_activated_at=ago(days=31))
    assert (await world.test.validate(key=made.key)).code == "EXPIRED"


async def test_bad_machines_are_named(suite: Suite, world: World) -> None:
    _, key, _ = await stocked(world)
    asked = Validation(key=key, fingerprint="short", components={"Bad": "x", "mac": "mac-0001"}).request()
    error = await refused(suite, asked, world.test_key)
    assert set(error.violations) == {
        ("identity.fingerprint", "LENGTH_OUT_OF_RANGE"), ("components.components[0].name", "FORMAT_INVALID"),
        ("components.components[0].fingerprint", "LENGTH_OUT_OF_RANGE"),
    }  # fmt: skip
    request = Validation(key=key, components={"mac": "mac-00001"}).request()
    assert (await refused(suite, request, world.test_key)).violations == [("components", "CONTRADICTION")]
    request = Validation(key=key).request()
    request.identity.SetInParent()
    assert (await refused(suite, request, world.test_key)).violations == [("identity.fingerprint", "EXACTLY_ONE")]
    request.identity.CopyFrom(MachineIdentity(workload=WorkloadIdentity()))
    assert (await refused(suite, request, world.test_key)).info.reason == "CALLER_NOT_ALLOWED"
    told = pb.ExplainValidationRequest(validation=request)
    assert (await refused(suite, told, world.test_key)).info.reason == "CALLER_NOT_ALLOWED"
    batch = await send(suite, pb.BatchValidateLicensesRequest(requests=[request]), world.test_key)
    assert batch.results[0].HasField("status")
