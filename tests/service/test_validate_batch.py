"""BatchValidateLicenses: the answers are those of single validations, at one moment, each in its place."""

from __future__ import annotations

import asyncio
from datetime import UTC, timedelta

import grpc
import pytest
from lictor import InvalidArgument, Validation, ValidationResult
from lictor.common.v1.common_pb2 import LicenseSelector, View
from lictor.license.v1 import validation_service_pb2 as pb

from tests.helpers.builders import Shop, ago, ahead, open_shop, refused, send, unchanged
from tests.helpers.suite import Suite, World


def plain(result: object) -> ValidationResult:
    assert isinstance(result, ValidationResult), result
    return result


def without_the_moment(result: ValidationResult) -> tuple[object, ...]:
    return (
        result.valid, result.code, result.all_codes, result.license_id, result.product_id, result.policy_id,
        result.expire_time, result.tier, result.missing, result.uses_left, result.detail, result.grace_end_time,
        result.check_in_due_time, result.is_trial,
    )  # fmt: skip


async def a_mixed_lot(shop: Shop) -> list[Validation]:
    """Licenses in every state, by key and by id, with what is asked of them, and some that there are not."""
    made = [await shop.issue_in(status) for status in ("active", "suspended", "expired", "revoked", "banned")]
    held = await shop.issue(customer_email="ada@example.com")
    return [
        *(Validation(key=one.key) for one in made),
        *(Validation(license_id=one.license.license_id) for one in made),
        Validation(key="NO-SUCH-KEY"),
        Validation(license_id="lic_none"),
        Validation(key=held.key, customer_email="ADA@example.com", product="SHOP"),
        Validation(key=held.key, subject_ref="somebody", product="OTHER", entitlements=["export", "import"]),
        Validation(key=held.key, required_tier="pro", policy_id="pol_other", entitlements=[]),
        Validation(key=held.key.lower()),
    ]


async def test_the_answers_are_those_of_single_validations(world: World) -> None:
    asked = await a_mixed_lot(await open_shop(world.test))
    results = [plain(one) for one in await world.test.validate_batch(asked)]
    singles = [plain((await world.test.validate_batch([one]))[0]) for one in asked]
    assert [without_the_moment(one) for one in results] == [without_the_moment(one) for one in singles]
    assert {one.code for one in results} >= {"VALID", "SUSPENDED", "EXPIRED", "REVOKED", "BANNED", "NOT_FOUND"}
    single = await world.test.validate(key=asked[0].key)
    assert without_the_moment(single) == without_the_moment(results[0])


async def test_a_batch_has_one_moment_and_a_decision_for_each(world: World) -> None:
    results = [plain(one) for one in await world.test.validate_batch(await a_mixed_lot(await open_shop(world.test)))]
    assert len({one.evaluated_at for one in results}) == 1
    assert len({one.decision.decision_id for one in results}) == len(results)


async def test_an_item_that_is_wrong_has_its_error_in_its_place(suite: Suite, world: World) -> None:
    made = await (await open_shop(world.test)).issue()
    good = pb.ValidateLicenseRequest(license=LicenseSelector(license_key=made.key))
    bad = pb.ValidateLicenseRequest(license=LicenseSelector(license_key="x" * 300), required_tier="No Tier")
    answer = await send(suite, pb.BatchValidateLicensesRequest(requests=[good, bad, good]), world.test_key)
    assert [result.WhichOneof("result") for result in answer.results] == ["response", "status", "response"]
    assert answer.results[1].status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    results = await world.test.validate_batch([Validation(key=made.key), Validation(key="y" * 300, required_tier="No")])
    error = results[1]
    assert isinstance(error, InvalidArgument)
    assert {(v.field, v.reason) for v in error.violations} == {
        ("license.license_key", "LENGTH_OUT_OF_RANGE"), ("required_tier", "SLUG_INVALID"),
    }  # fmt: skip
    assert plain(results[0]).valid


@pytest.mark.parametrize(
    ("count", "view", "violation"),
    [
        (0, View.KIND_UNSPECIFIED, ("requests", "REQUIRED")),
        (1001, View.KIND_UNSPECIFIED, ("requests", "TOO_MANY")),
        (101, View.FULL, ("requests", "TOO_MANY")),
    ],
    ids=["none", "1001", "101 full"],
)
async def test_batches_have_bounds(
    suite: Suite, world: World, count: int, view: View.Kind.ValueType, violation: tuple[str, str]
) -> None:
    one = pb.ValidateLicenseRequest(license=LicenseSelector(license_id="lic_1"))
    request = pb.BatchValidateLicensesRequest(requests=[one] * count, view=view)
    error = await refused(suite, request, world.test_key)
    assert error.violations == [violation]


async def test_the_view_is_the_batchs(suite: Suite, world: World) -> None:
    one = pb.ValidateLicenseRequest(license=LicenseSelector(license_id="lic_1"), view=View.BASIC)
    error = await refused(suite, pb.BatchValidateLicensesRequest(requests=[one]), world.test_key)
    assert error.violations == [("requests[0].view", "CONTRADICTION")]


async def test_a_thousand_at_once(world: World) -> None:
    made = await (await open_shop(world.test)).issue()
    asked = [Validation(key=made.key) if n % 2 else Validation(key=f"NO-SUCH-KEY-{n}") for n in range(1000)]
    results = [plain(one) for one in await world.test.validate_batch(asked, timeout_s=10)]
    assert [one.valid for one in results] == [bool(n % 2) for n in range(1000)]


async def test_views_bring_the_licenses_and_stay_under_three_mebibytes(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    made = await shop.issue(metadata={"note": "m"}, labels={"a": "b"})
    asked = [Validation(key=made.key)]
    (none,), (basic,), (full,) = [await world.test.validate_batch(asked, view=view) for view in (None, "BASIC", "FULL")]
    assert plain(none).license is None
    assert plain(basic).license is not None
    assert not plain(basic).license.HasField("metadata")  # pyright: ignore[reportOptionalMemberAccess]
    assert plain(full).license == await world.test.licenses.get(made.license.license_id)
    large = {f"k{n}": "x" * 255 for n in range(60)}
    big = await shop.issue(metadata=large, labels=large)
    selector = LicenseSelector(license_id=big.license.license_id)
    request = pb.BatchValidateLicensesRequest(
        requests=[pb.ValidateLicenseRequest(license=selector)] * 1000, view=View.BASIC
    )
    answer = await send(suite, request, world.test_key)
    assert answer.ByteSize() < 3 * 1024 * 1024
    shown = [result.response.HasField("license") for result in answer.results]
    assert len(shown) == 1000
    assert shown == sorted(shown, reverse=True)
    assert 100 < sum(shown) < 1000


async def test_a_batch_counts_each_of_its_validations_until_none_is_left(world: World) -> None:
    shop = await open_shop(world.test, max_uses=5, uses_counted_by="VALIDATION")
    made = await shop.issue()
    results = [plain(one) for one in await world.test.validate_batch([Validation(key=made.key)] * 8)]
    assert [one.code for one in results] == ["VALID"] * 5 + ["USES_EXCEEDED"] * 3
    assert [one.uses_left for one in results] == [4, 3, 2, 1, 0, 0, 0, 0]
    assert (await world.test.licenses.get(made.license.license_id)).uses == 5


async def test_a_batch_lets_a_license_begin_once(world: World) -> None:
    shop = await open_shop(
        world.test, expiration_basis="FROM_FIRST_VALIDATION", max_uses=2, uses_counted_by="VALIDATION"
    )
    made = await shop.issue()
    results = [plain(one) for one in await world.test.validate_batch([Validation(key=made.key)] * 3)]
    assert [(one.code, one.uses_left) for one in results] == [("VALID", 1), ("VALID", 0), ("USES_EXCEEDED", 0)]
    after = await world.test.licenses.get(made.license.license_id)
    assert {one.expire_time for one in results} == {after.expire_time.ToDatetime(tzinfo=UTC)}
    assert (after.revision, after.uses) == (2, 2)


async def test_batches_that_meet_count_exactly_and_never_wait_in_a_circle(world: World) -> None:
    shop = await open_shop(world.test, max_uses=20, uses_counted_by="VALIDATION")
    made = [await shop.issue() for _ in range(3)]
    asked = [Validation(license_id=one.license.license_id) for one in made]
    orders = [asked, asked[::-1], [asked[1], asked[2], asked[0]]] * 8
    batches = await asyncio.gather(*(world.test.validate_batch(order, timeout_s=20) for order in orders))
    valid = [plain(one).license_id for batch in batches for one in batch if plain(one).valid]
    for one in made:
        assert valid.count(one.license.license_id) == 20
        assert (await world.test.licenses.get(one.license.license_id)).uses == 20


async def test_an_explanation_counts_and_begins_nothing(suite: Suite, world: World) -> None:
    shop = await open_shop(
        world.test, max_uses=1, uses_counted_by="VALIDATION", expiration_basis="FROM_FIRST_VALIDATION"
    )
    made = await shop.issue()
    async with unchanged(suite, world):
        told = await world.test.explain_validation(Validation(key=made.key))
    assert told.verdict.valid
    assert (await world.test.validate(key=made.key)).valid


async def test_an_explanation_has_every_check_and_the_verdict_of_a_validation(world: World) -> None:
    shop = await open_shop(world.test, grace_period=timedelta(days=2), require_user_scope=True)
    made = await shop.issue(start_time=ago(days=5), expire_time=ago(hours=1))
    asked = Validation(key=made.key, product="OTHER")
    told = await world.test.explain_validation(asked)
    plain_result = plain((await world.test.validate_batch([asked]))[0])
    assert without_the_moment(told.verdict) == without_the_moment(plain_result)
    failed = [check for check in told.checks if check.outcome == pb.ExplainedCheck.FAILED]
    assert [check.name for check in failed] == ["product", "user_named"]
    assert [pb.ValidationCode.Code.Name(check.code) for check in failed] == [
        "PRODUCT_SCOPE_MISMATCH",
        "USER_SCOPE_REQUIRED",
    ]
    assert failed[0].inputs["asked"] == "OTHER"
    assert failed[0].inputs["code"] == "SHOP"
    (grace,) = [check for check in told.checks if check.outcome == pb.ExplainedCheck.TOLD]
    assert grace.name == "grace"
    assert all(check.hint for check in (*failed, grace))
    assert {check.outcome for check in told.checks} == {
        pb.ExplainedCheck.FAILED, pb.ExplainedCheck.TOLD, pb.ExplainedCheck.PASSED,
    }  # fmt: skip
    assert made.key not in str(told)


async def test_an_unknown_license_is_explained_too(world: World) -> None:
    told = await world.test.explain_validation(Validation(key="NO-SUCH-KEY"))
    assert told.verdict.code == "NOT_FOUND"
    assert [check.name for check in told.checks] == ["found"]


async def test_an_explanation_names_what_is_wrong_with_its_request(suite: Suite, world: World) -> None:
    error = await refused(suite, pb.ExplainValidationRequest(), world.test_key)
    assert error.violations == [("validation", "REQUIRED")]
    bad = pb.ValidateLicenseRequest(view=View.FULL, required_tier="No")
    error = await refused(suite, pb.ExplainValidationRequest(validation=bad), world.test_key)
    assert set(error.violations) == {
        ("validation.license", "EXACTLY_ONE"), ("validation.required_tier", "SLUG_INVALID"),
        ("validation.view", "CONTRADICTION"),
    }  # fmt: skip


async def test_a_license_that_starts_later_is_explained_with_its_start(world: World) -> None:
    made = await (await open_shop(world.test)).issue(start_time=ahead(days=1))
    told = await world.test.explain_validation(Validation(key=made.key))
    (failed,) = [check for check in told.checks if check.outcome == pb.ExplainedCheck.FAILED]
    assert (failed.name, failed.inputs["start_time"][-1]) == ("started", "Z")


async def test_a_publishable_key_asks_for_ten_by_their_keys_and_no_more(suite: Suite, world: World) -> None:
    made = await (await open_shop(world.test)).issue()
    shipped = (await world.test.api_keys.create(kind="PUBLISHABLE", scopes=["licenses:validate"])).secret
    by_key = pb.ValidateLicenseRequest(license=LicenseSelector(license_key=made.key))
    by_id = pb.ValidateLicenseRequest(license=LicenseSelector(license_id=made.license.license_id))
    answer = await send(suite, pb.BatchValidateLicensesRequest(requests=[by_key] * 9 + [by_id]), shipped)
    assert [result.response.valid for result in answer.results] == [True] * 9 + [False]
    assert answer.results[9].status.code == grpc.StatusCode.PERMISSION_DENIED.value[0]
    for request in (
        pb.BatchValidateLicensesRequest(requests=[by_key] * 11),
        pb.BatchValidateLicensesRequest(requests=[by_key], view=View.BASIC),
    ):
        error = await refused(suite, request, shipped)
        assert error.reason == "CALLER_NOT_ALLOWED"
