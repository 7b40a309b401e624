"""Uses: counted by whom, never past the limit, never twice; and check-ins."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from lictor import FailedPrecondition, LictorError
from lictor.common.v1.common_pb2 import LicenseSelector
from lictor.license.v1 import validation_service_pb2_grpc as validation_grpc
from lictor.license.v1.license_service_pb2 import LicenseMark, LicenseOverrides
from lictor.license.v1.validation_service_pb2 import ValidateLicenseRequest, ValidationCode

from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.builders import Shop, ago, ahead, at, events, open_shop, shift, unchanged, uuid
from tests.helpers.serving import samples, serving, until
from tests.helpers.suite import Suite, World, bearer

N = 7
CROWD = 64
COUNTED: dict[str, Any] = {"uses_counted_by": "VALIDATION", "max_uses": N}


async def used_shop(world: World, **terms: Any) -> tuple[Shop, str, str]:
    """A shop and a license of it: its id and key."""
    shop = await open_shop(world.test, **terms)
    made = await shop.issue()
    return shop, made.license.license_id, made.key


async def types(suite: Suite, license_id: str) -> Counter[str]:
    return Counter(event["type"] for event in await events(suite, license_id))


async def refusal(call: Any) -> tuple[str, dict[str, str]]:
    with pytest.raises(LictorError) as caught:
        await call
    return caught.value.reason, dict(caught.value.metadata)


async def test_uses_are_counted_all_or_none(suite: Suite, world: World) -> None:
    _, license_id, key = await used_shop(world, max_uses=5)
    client, licenses = world.test, world.test.licenses
    before = await licenses.get(license_id)
    for call, uses in (
        (licenses.increment_uses(license_id), 1), (licenses.increment_uses(license_id, 3), 4),
        (licenses.decrement_uses(license_id, 2), 2), (licenses.increment_uses(license_id, 3), 5),
    ):  # fmt: skip
        after = (await call).license
        assert (after.uses, after.etag) == (uses, before.etag)
        verdict = await client.validate(key=key, view="BASIC")
        assert (verdict.uses_left, verdict.code) == (5 - uses, "VALID" if uses < 5 else "USES_EXCEEDED")
        assert verdict.license is not None
        assert verdict.license == await licenses.get(license_id) == after
    async with unchanged(suite, world):
        asked = {"id": license_id, "asked": "1", "available": "0"}
        assert await refusal(licenses.increment_uses(license_id)) == ("INSUFFICIENT_USAGE", asked)
        asked = {"id": license_id, "asked": "6", "available": "5"}
        assert await refusal(licenses.decrement_uses(license_id, 6)) == ("INSUFFICIENT_USAGE", asked)
    assert (await licenses.reset_uses(license_id)).license.uses == 0
    told = await events(suite, license_id)
    assert [(event["type"].removeprefix("license."), event["data"]["uses"]) for event in told] == [
        ("created", 0), ("usage.incremented", 1), ("usage.incremented", 4), ("usage.decremented", 2),
        ("usage.incremented", 5), ("limit_reached", 5), ("usage.reset", 0),
    ]  # fmt: skip
    assert [event["subject_seq"] for event in told] == list(range(1, 8))
    assert all(event["data"]["revision"] == 1 and event["in_outbox"] for event in told)
    assert key not in str([dict(event) for event in told])


async def test_without_a_limit_uses_are_counted_and_refuse_nothing(suite: Suite, world: World) -> None:
    shop, license_id, key = await used_shop(world)
    assert (await world.test.licenses.increment_uses(license_id, 10**9)).license.uses == 10**9
    verdict = await world.test.validate(key=key)
    assert (verdict.code, verdict.uses_left) == ("VALID", None)
    assert (await types(suite, license_id))["license.limit_reached"] == 0
    await world.test.policies.update(shop.policy.policy_id, max_uses=10**9)
    verdict = await world.test.validate(key=key)
    assert (verdict.code, verdict.valid, verdict.uses_left) == ("USES_EXCEEDED", False, 0)
    await world.test.policies.update(shop.policy.policy_id, max_uses=1)
    assert (await world.test.validate(key=key)).uses_left == 0


async def test_a_use_is_counted_once_however_often_it_is_sent(suite: Suite, world: World) -> None:
    _, license_id, _ = await used_shop(world, max_uses=2)
    again, licenses = uuid(), world.test.licenses
    answers = await asyncio.gather(*(licenses.increment_uses(license_id, 2, request_id=again) for _ in range(12)))
    assert [answer.license.uses for answer in answers] == [2] * 12
    assert (await licenses.increment_uses(license_id, 2, request_id=again)).license.uses == 2
    assert await types(suite, license_id) == {
        "license.created": 1, "license.usage.incremented": 1, "license.limit_reached": 1,
    }  # fmt: skip
    assert (await refusal(licenses.increment_uses(license_id, 1, request_id=again)))[0] == "REQUEST_ID_REUSED"


async def test_the_limit_holds_against_everybody_at_once(suite: Suite, world: World) -> None:
    _, license_id, _ = await used_shop(world, max_uses=N)

    async def one() -> str:
        try:
            await world.test.licenses.increment_uses(license_id)
        except FailedPrecondition as error:
            return error.reason
        return "OK"

    ended = Counter(await asyncio.gather(*(one() for _ in range(CROWD // 2))))
    assert ended == {"OK": N, "INSUFFICIENT_USAGE": CROWD // 2 - N}
    assert (await world.test.licenses.get(license_id)).uses == N
    told = await events(suite, license_id)
    assert [event["data"]["uses"] for event in told] == [*range(N + 1), N]
    assert told[-1]["type"] == "license.limit_reached"


async def validated(stubs: Sequence[validation_grpc.ValidationServiceAsyncStub], world: World, key: str) -> None:
    """Exactly as many validations are valid as there are uses, and each says another number of uses left."""
    request = ValidateLicenseRequest(license=LicenseSelector(license_key=key))
    calls = (stubs[n % len(stubs)].ValidateLicense(request, metadata=bearer(world.test_key)) for n in range(CROWD))
    verdicts = await asyncio.gather(*calls)
    assert Counter(verdict.code for verdict in verdicts) == {
        ValidationCode.VALID: N, ValidationCode.USES_EXCEEDED: CROWD - N,
    }  # fmt: skip
    assert sorted(verdict.uses_left for verdict in verdicts if verdict.valid) == list(range(N))
    assert {(verdict.HasField("uses_left"), verdict.uses_left) for verdict in verdicts if not verdict.valid} == {
        (True, 0)
    }


async def test_as_many_validations_are_valid_as_there_are_uses(suite: Suite, world: World) -> None:
    _, license_id, key = await used_shop(world, **COUNTED)
    await validated([suite.validation], world, key)
    assert (await world.test.licenses.get(license_id)).uses == N
    assert await types(suite, license_id) == {
        "license.created": 1, "license.usage.incremented": N, "license.limit_reached": 1,
    }  # fmt: skip
    async with unchanged(suite, world):
        assert (await world.test.validate(key=key)).code == "USES_EXCEEDED"
    await world.test.licenses.decrement_uses(license_id)
    verdict = await world.test.validate(license_id=license_id)
    assert (verdict.valid, verdict.uses_left) == (True, 0)
    assert (await types(suite, license_id))["license.limit_reached"] == 2


async def test_so_it_is_over_two_processes(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    async with (
        serving(postgres, tmp_path, "grpcio", processes="2") as served,
        served.suite.world() as world,
        AsyncExitStack() as opened,
    ):

        async def processes(method: str = "") -> set[str]:
            """The processes that have answered calls of a method, or that are there at all."""
            answered = samples((await served.get("/metrics"))[1], "lictor_calls_total")
            return {
                dict(labels)["process"]
                for labels, calls in answered.items()
                if not method or (calls and method in str(labels))
            }

        async def both_are_there() -> bool:
            return await processes() == {"0", "1"}

        async def both_were_asked() -> bool:
            return await processes("ValidateLicense") == {"0", "1"}

        await until(both_are_there, 20)
        made = await (await open_shop(world.test, **COUNTED)).issue()
        own_connection = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.aio.insecure_channel(served.suite.bound.api_addr, own_connection) for _ in range(16)]
        stubs = [
            validation_grpc.ValidationServiceStub(await opened.enter_async_context(channel)) for channel in channels
        ]
        await validated(stubs, world, made.key)
        await until(both_were_asked, 10)
        told = await events(served.suite, made.license.license_id)
        assert [event["data"]["uses"] for event in told] == [*range(N + 1), N]


async def test_only_valid_validations_count(suite: Suite, world: World) -> None:
    _, license_id, key = await used_shop(world, **COUNTED)
    async with unchanged(suite, world):
        verdict = await world.test.validate(key=key, product="OTHER")
        assert (verdict.valid, verdict.uses_left) == (False, N)
    await world.test.licenses.increment_uses(license_id, N - 1)
    assert (await world.test.validate(key=key)).uses_left == 0
    assert (await world.test.licenses.get(license_id)).uses == N


async def test_explicit_uses_are_not_counted_by_validations(suite: Suite, world: World) -> None:
    _, _, key = await used_shop(world, max_uses=1)
    async with unchanged(suite, world):
        for _ in range(3):
            assert (await world.test.validate(key=key)).uses_left == 1


async def test_a_license_has_a_limit_of_its_own_while_its_policy_lets_it(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test, max_uses=2, overridable=["MAX_USES"])
    own = LicenseOverrides(max_uses=1)
    made = await shop.issue(overrides=own)
    assert made.license.overrides == own
    client, license_id, policy_id = world.test, made.license.license_id, shop.policy.policy_id
    await client.licenses.increment_uses(license_id)
    assert (await client.validate(key=made.key)).code == "USES_EXCEEDED"
    await client.policies.update(policy_id, overridable=["MAX_MACHINES"])
    assert (await client.validate(key=made.key)).uses_left == 1
    assert (await client.licenses.get(license_id)).overrides == own
    async with unchanged(suite, world):
        for change in (own, LicenseOverrides(max_uses=9, max_machines=1)):
            call = client.licenses.update(license_id, overrides=change)
            assert await refusal(call) == ("POLICY_INCOMPATIBLE", {"policyId": policy_id})
        assert (await refusal(shop.issue(overrides=own)))[0] == "POLICY_INCOMPATIBLE"
    await client.policies.update(policy_id, overridable=["MAX_USES"])
    assert (
        await client.licenses.update(license_id, overrides=LicenseOverrides(max_uses=9))
    ).license.overrides.max_uses == 9
    assert (await client.validate(key=made.key)).uses_left == 8
    after = (await client.licenses.update(license_id, overrides=None)).license
    assert not after.HasField("overrides")
    assert (await client.validate(key=made.key)).uses_left == 1
    (*_, last) = await events(suite, license_id)
    assert (last["type"], last["data"]["overrides"]["max_uses"]) == ("license.updated", None)


async def test_check_ins(suite: Suite, world: World) -> None:
    shop, license_id, key = await used_shop(world, require_check_in=True, check_in_interval="DAY", check_in_count=2)
    client = world.test
    made = await client.licenses.get(license_id)
    assert made.check_in_due_time == at(made.create_time.ToDatetime() + timedelta(days=2))
    verdict = await client.validate(key=key)
    assert (verdict.code, verdict.decision.valid_until) == ("VALID", made.check_in_due_time)
    since = ago(days=3)
    await shift(suite, "license.license", "license_id", license_id, check_in_from=since)
    await shift(suite, "license.policy", "policy_id", shop.policy.policy_id, check_in_since=since)
    late = await client.validate(key=key, view="BASIC")
    due = since + timedelta(days=2)
    assert (late.all_codes, late.valid, late.check_in_due_time) == (("CHECK_IN_OVERDUE",), False, due)
    assert late.license is not None
    assert list(late.license.marks) == [LicenseMark.CHECK_IN_OVERDUE]
    after = (await client.licenses.check_in(license_id, reason="back")).license
    assert after.last_check_in_time == after.update_time
    assert after.check_in_due_time == at(after.update_time.ToDatetime() + timedelta(days=2))
    assert (await client.validate(key=key)).code == "VALID"
    (*_, last) = await events(suite, license_id)
    assert (last["type"], last["subject_seq"], last["reason"]) == ("license.checked_in", 2, "back")
    assert last["data"]["last_check_in_at"] == last["data"]["check_in_from"] == last["data"]["updated_at"]


async def test_a_policy_that_begins_to_require_check_ins(suite: Suite, world: World) -> None:
    shop, license_id, key = await used_shop(world)
    client, policy_id = world.test, shop.policy.policy_id
    await shift(suite, "license.license", "license_id", license_id, created_at=ago(days=99))
    async with unchanged(suite, world):
        call = client.licenses.check_in(license_id)
        assert await refusal(call) == ("POLICY_INCOMPATIBLE", {"policyId": policy_id})
    for _ in range(2):
        policy = (await client.policies.update(policy_id, require_check_in=True, check_in_interval="WEEK")).policy
        verdict = await client.validate(key=key)
        assert verdict.code == "VALID"
        assert verdict.check_in_due_time is not None
        assert at(verdict.check_in_due_time) == at(policy.update_time.ToDatetime() + timedelta(weeks=1))
        await client.policies.update(policy_id, require_check_in=False)
        assert (await client.validate(key=key)).check_in_due_time is None


async def test_a_license_that_starts_later_owes_no_check_in_before(world: World) -> None:
    shop = await open_shop(world.test, require_check_in=True, check_in_interval="DAY")
    licenses = world.test.licenses
    license_ = (await shop.issue(start_time=ahead(days=9))).license
    assert license_.check_in_due_time == at(moment_of(license_.start_time) + timedelta(days=1))
    for days in (19, 3):
        moved = (await licenses.update(license_.license_id, start_time=ahead(days=days), expire_time=None)).license
        verdict = await world.test.validate(license_id=license_.license_id)
        assert (verdict.code, verdict.check_in_due_time) == ("NOT_YET_VALID", moment_of(moved.check_in_due_time))
        assert moved.check_in_due_time == at(moment_of(moved.start_time) + timedelta(days=1))
    early = (await licenses.check_in(license_.license_id)).license
    assert early.check_in_due_time == at(moment_of(early.start_time) + timedelta(days=1))


def moment_of(value: Timestamp) -> datetime:
    return value.ToDatetime(tzinfo=UTC)
