"""Validation: every code, what an answer tells at each depth, and that strangers learn nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from lictor.common.v1.common_pb2 import Freshness, LicenseSelector, View
from lictor.license.v1.validation_service_pb2 import ValidateLicenseRequest, ValidateLicenseResponse, ValidationCode

from tests.helpers.builders import (
    Shop,
    ago,
    ahead,
    at,
    key_with,
    open_shop,
    refused,
    rows,
    send,
    shift,
    unchanged,
)
from tests.helpers.suite import Suite, World

UNKNOWN_KEY = "SHOP-0000-0000-0000-0000"


def by_key(key: str, view: View.Kind.ValueType = View.KIND_UNSPECIFIED) -> ValidateLicenseRequest:
    return ValidateLicenseRequest(license=LicenseSelector(license_key=key), view=view)


def by_id(license_id: str, view: View.Kind.ValueType = View.KIND_UNSPECIFIED) -> ValidateLicenseRequest:
    return ValidateLicenseRequest(license=LicenseSelector(license_id=license_id), view=view)


async def codes(shop: Shop, key: str) -> tuple[str, ...]:
    result = await shop.client.validate(key=key)
    assert result.code == result.all_codes[0]
    assert result.valid is bool(result) is (result.code == "VALID")
    assert result.detail
    return result.all_codes


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("active", "VALID"),
        ("suspended", "SUSPENDED"),
        ("expired", "EXPIRED"),
        ("revoked", "REVOKED"),
        ("banned", "BANNED"),
    ],
)
async def test_the_code_of_every_state(world: World, status: str, code: str) -> None:
    shop = await open_shop(world.test)
    assert await codes(shop, (await shop.issue_in(status)).key) == (code,)


async def test_a_license_is_not_yet_valid_before_its_start(world: World) -> None:
    shop = await open_shop(world.test)
    made = await shop.issue(start_time=ahead(hours=1))
    assert await codes(shop, made.key) == ("NOT_YET_VALID",)


@pytest.mark.parametrize("action", ["suspend", "revoke", "ban"])
@pytest.mark.parametrize("clock", ["not started", "over"])
async def test_all_codes_names_every_failing_check_in_order(
    suite: Suite, world: World, action: str, clock: str
) -> None:
    shop = await open_shop(world.test)
    made = await shop.issue()
    await getattr(world.test.licenses, action)(made.license.license_id)
    start = ahead(hours=1) if clock == "not started" else ago(hours=3)
    end = start + timedelta(hours=1)
    await shift(suite, "license.license", "license_id", made.license.license_id, starts_at=start, expires_at=end)
    first = {"suspend": "SUSPENDED", "revoke": "REVOKED", "ban": "BANNED"}[action]
    second = "NOT_YET_VALID" if clock == "not started" else "EXPIRED"
    assert await codes(shop, made.key) == (first, second)


async def test_time_passes_without_anybody_doing_anything(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    made = await shop.issue(start_time=ahead(hours=1), expire_time=ahead(hours=2))
    seen = [await codes(shop, made.key)]
    for starts_at, expires_at in ((ago(hours=1), ahead(hours=1)), (ago(hours=2), ago(hours=1))):
        await shift(
            suite, "license.license", "license_id", made.license.license_id,
            starts_at=starts_at, expires_at=expires_at,
        )  # fmt: skip
        seen.append(await codes(shop, made.key))
    assert seen == [("NOT_YET_VALID",), ("VALID",), ("EXPIRED",)]


async def test_an_answer_tells_how_long_it_stands(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    start, soon, later = ahead(hours=1), ahead(minutes=1), ahead(days=1)
    for period, valid_until in (
        ({"start_time": start, "expire_time": later}, start),
        ({"expire_time": later}, later),
        ({"expire_time": soon}, soon),
    ):
        decision = (await send(suite, by_key((await shop.issue(**period)).key), world.test_key)).decision
        assert decision.valid_until == at(valid_until)
        left = valid_until - decision.evaluated_at.ToDatetime(tzinfo=valid_until.tzinfo)
        assert decision.recheck_after.ToTimedelta() == min(left, timedelta(minutes=5))
    for status in ("suspended", "expired", "revoked", "banned"):
        decision = (await send(suite, by_key((await shop.issue_in(status)).key), world.test_key)).decision
        assert not decision.HasField("valid_until")
    perpetual = await open_shop(world.test, code="EVER", duration=None)
    answer = await send(suite, by_key((await perpetual.issue()).key), world.test_key)
    assert not answer.decision.HasField("valid_until")
    assert not answer.HasField("expire_time")


async def test_every_decision_has_an_id_of_its_own_and_says_when_and_from_where(suite: Suite, world: World) -> None:
    made = await (await open_shop(world.test)).issue()
    first, second = [(await send(suite, by_key(made.key), world.test_key)).decision for _ in range(2)]
    assert first.decision_id.startswith("dec_")
    assert first.decision_id != second.decision_id
    for decision in (first, second):
        assert ago(seconds=5) < decision.evaluated_at.ToDatetime(tzinfo=ago().tzinfo) < ahead(seconds=5)
    assert first.freshness == Freshness.RECORD


async def test_a_license_is_found_by_its_id_and_by_any_spelling_of_its_key(world: World) -> None:
    made = await (await open_shop(world.test, code="LOOP10")).issue()
    misread = made.key.replace("0", "O").replace("1", "l")
    for key in (made.key, made.key.lower(), misread, misread.swapcase(), made.key.replace("1", "I"), f" {made.key}\n"):
        assert (await world.test.validate(key=key)).license_id == made.license.license_id
    assert (await world.test.validate(license_id=made.license.license_id)).valid
    assert (await world.test.validate(key=made.key.replace("-", ""))).code == "NOT_FOUND"


FOUND = {"decision", "valid", "code", "all_codes", "detail", "license_id", "product_id", "policy_id", "seats"}


@pytest.mark.parametrize(
    ("view", "shown"),
    [
        (View.KIND_UNSPECIFIED, FOUND),
        (View.DECISION, FOUND),
        (View.BASIC, FOUND | {"license"}),
        (View.FULL, FOUND | {"license"}),
    ],
)
async def test_views(suite: Suite, world: World, view: View.Kind.ValueType, shown: set[str]) -> None:
    shop = await open_shop(world.test, duration=None)
    made = await shop.issue(metadata={"a": {"b": 1}}, labels={"l": "v"}, customer_email="ada@example.com")
    for request in (by_key(made.key, view), by_id(made.license.license_id, view)):
        answer: ValidateLicenseResponse = await send(suite, request, world.test_key)
        assert {field.name for field, _ in answer.ListFields()} == shown
        assert (answer.license_id, answer.product_id, answer.policy_id) == (
            made.license.license_id,
            shop.product.product_id,
            shop.policy.policy_id,
        )
        if "license" in shown:
            expected = made.license
            if view != View.FULL:
                expected.ClearField("metadata")
            assert answer.license == expected
        assert made.key not in str(answer)


async def test_the_license_in_an_answer_has_the_state_of_the_answer(suite: Suite, world: World) -> None:
    made = await (await open_shop(world.test)).issue_in("expired")
    answer = await send(suite, by_key(made.key, View.BASIC), world.test_key)
    assert (answer.code, MessageToDict(answer.license)["status"]) == (ValidationCode.EXPIRED, "expired")


async def test_strangers_licenses_are_as_if_they_were_not(suite: Suite, world: World) -> None:
    """Unknown, of another account, of another mode, deleted: byte for byte the same answer but for the decision block."""
    shop, live = await open_shop(world.test), await open_shop(world.live)
    deleted = await shop.issue()
    await world.test.licenses.delete(deleted.license.license_id)
    async with suite.world() as other:
        strangers = [deleted, await live.issue(), await (await open_shop(other.test)).issue()]
        for view in View.Kind.values():
            requests = [
                by_key(UNKNOWN_KEY, view),
                by_key("x", view),
                by_id("lic_nope", view),
                by_id("' OR 1=1 --", view),
            ]
            for made in strangers:
                requests += [by_key(made.key, view), by_id(made.license.license_id, view)]
            answers: list[bytes] = []
            for request in requests:
                answer: ValidateLicenseResponse = await send(suite, request, world.test_key)
                assert (answer.code, list(answer.all_codes)) == (ValidationCode.NOT_FOUND, [ValidationCode.NOT_FOUND])
                assert answer.decision.recheck_after.ToTimedelta() == timedelta(minutes=5)
                assert not answer.decision.HasField("valid_until")
                answer.ClearField("decision")
                answers.append(answer.SerializeToString(deterministic=True))
            assert len(set(answers)) == 1


async def test_a_trial_says_so(world: World) -> None:
    trial = await open_shop(world.test, code="TRY", template="trial", duration=timedelta(days=14))
    bought = await open_shop(world.test, code="BUY")
    assert (await world.test.validate(key=(await trial.issue()).key)).is_trial
    assert not (await world.test.validate(key=(await bought.issue()).key)).is_trial


async def test_a_policy_change_holds_at_the_next_validation(world: World) -> None:
    shop = await open_shop(world.test)
    made = await shop.issue()
    for is_trial in (True, False, True):
        await world.test.policies.update(shop.policy.policy_id, is_trial=is_trial)
        assert (await world.test.validate(key=made.key)).is_trial is is_trial


@pytest.mark.parametrize(("action", "code"), [("suspend", "SUSPENDED"), ("revoke", "REVOKED"), ("ban", "BANNED")])
async def test_what_is_taken_away_is_gone_when_the_call_returns(world: World, action: str, code: str) -> None:
    shop = await open_shop(world.test)
    for _ in range(5):
        made = await shop.issue()
        assert (await world.test.validate(key=made.key)).valid
        await getattr(world.test.licenses, action)(made.license.license_id)
        assert (await world.test.validate(key=made.key)).code == code


async def test_validating_changes_nothing(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    keys = [(await shop.issue_in(status)).key for status in ("active", "expired", "revoked")]
    async with unchanged(suite, world):
        for key in (*keys, UNKNOWN_KEY):
            await world.test.validate(key=key)


async def test_a_key_that_may_only_validate_can(suite: Suite, world: World) -> None:
    made = await (await open_shop(world.test)).issue()
    async with suite.client(await key_with(world.test, "licenses:validate")) as narrow:
        assert (await narrow.validate(key=made.key)).valid


@pytest.mark.parametrize(
    ("selector", "field", "reason"),
    [
        (None, "license", "EXACTLY_ONE"),
        ({}, "license", "EXACTLY_ONE"),
        ({"license_key": ""}, "license.license_key", "LENGTH_OUT_OF_RANGE"),
        ({"license_key": "x" * 256}, "license.license_key", "LENGTH_OUT_OF_RANGE"),
        ({"license_id": ""}, "license.license_id", "LENGTH_OUT_OF_RANGE"),
        ({"license_id": "x" * 65}, "license.license_id", "LENGTH_OUT_OF_RANGE"),
        ({"license_key": "SHOP\0"}, "license.license_key", "NUL_IN_STRING"),
    ],
)
async def test_malformed_selectors(
    suite: Suite, world: World, selector: dict[str, Any] | None, field: str, reason: str
) -> None:
    before = await rows(suite, world.account_id)
    request = ValidateLicenseRequest(license=None if selector is None else LicenseSelector(**selector))
    error = await refused(suite, request, world.test_key)
    assert (error.reason, error.violations) == ("FIELD_INVALID", [(field, reason)])
    assert await rows(suite, world.account_id) == before


@pytest.mark.parametrize(
    "key", ["x", "SHOP", "SHOP-", "кириллица", "🔑" * 60, "'; DROP TABLE license.license; --", " "]
)
async def test_any_other_text_is_only_unknown(world: World, key: str) -> None:
    assert (await world.test.validate(key=key)).code == "NOT_FOUND"


async def test_an_unknown_view_is_refused(suite: Suite, world: World) -> None:
    request = by_key(UNKNOWN_KEY)
    request.MergeFromString(b"\x10\x09")  # view 9, as a newer client might send it
    error = await refused(suite, request, world.test_key)
    assert (error.reason, error.violations) == ("FIELD_INVALID", [("view", "ENUM_UNKNOWN")])
