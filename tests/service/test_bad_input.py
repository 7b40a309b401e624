"""What bad input gets: its code, its reason, its field, and a record of which no row has changed."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from lictor.account.v1 import account_service_pb2 as account
from lictor.license.v1 import catalog_service_pb2 as catalog
from lictor.license.v1 import license_service_pb2 as pb
from lictor.license.v1.validation_service_pb2 import ValidateLicenseRequest

from tests.helpers.builders import (
    METHODS,
    held,
    open_shop,
    refused_by,
    refused_for_time,
    refused_unchanged,
    send,
    send_raw,
    unchanged,
    uuid,
)
from tests.helpers.suite import Suite, World

INVALID = grpc.StatusCode.INVALID_ARGUMENT
Violations = list[tuple[str, str]]


async def assert_violations(suite: Suite, world: World, request: Message, *violations: tuple[str, str]) -> None:
    error = await refused_unchanged(suite, world, request)
    assert (error.code, error.reason, error.violations) == (INVALID, "FIELD_INVALID", list(violations))
    assert dict(error.info.metadata) == {"violations": str(len(violations))}


@pytest.mark.parametrize("key", ["short", "x" * 256, "with space", "tab\tkey!", "ключ-ключ", "new\nline!", "\x7f" * 8])
async def test_a_malformed_license_key(suite: Suite, world: World, key: str) -> None:
    shop = await open_shop(world.test)
    request = pb.CreateLicenseRequest(policy_id=shop.policy.policy_id, key=key)
    error = await refused_unchanged(suite, world, request)
    assert (error.reason, error.violations) == ("FIELD_INVALID", [("key", "LICENSE_KEY_INVALID")])
    assert key not in error.message, "a key is a secret, even a bad one"


@pytest.mark.parametrize("slug", ["Pro", "my_app", "my app", "my.app", "app/", "-" * 64, "äpp", "app\n"])
async def test_a_bad_product_slug(suite: Suite, world: World, slug: str) -> None:
    product = (await open_shop(world.test)).product
    made = catalog.CreateProductRequest(code="AB", display_name="x", slug=slug)
    await assert_violations(suite, world, made, ("slug", "SLUG_INVALID"))
    changed = catalog.UpdateProductRequest(product_id=product.product_id, slug=slug)
    await assert_violations(suite, world, changed, ("slug", "SLUG_INVALID"))


@pytest.mark.parametrize("code", ["pro", "P", "P" * 17, "PRO-APP", "PRO APP", "ПРО", "PRO\n"])
async def test_a_bad_product_code(suite: Suite, world: World, code: str) -> None:
    request = catalog.CreateProductRequest(code=code, display_name="x")
    await assert_violations(suite, world, request, ("code", "CODE_INVALID"))


@pytest.mark.parametrize("limit", [0, -1, -(2**31)])
async def test_a_limit_below_one(suite: Suite, world: World, limit: int) -> None:
    policy = (await open_shop(world.test)).policy
    for request in (
        catalog.CreatePolicyRequest(product_id=policy.product_id, display_name="x", max_machines=limit),
        catalog.UpdatePolicyRequest(policy_id=policy.policy_id, max_machines=limit),
    ):
        await assert_violations(suite, world, request, ("max_machines", "OUT_OF_RANGE"))


async def test_unlimited_machines_that_nobody_confirmed(suite: Suite, world: World) -> None:
    policy = (await open_shop(world.test)).policy
    for request in (
        catalog.CreatePolicyRequest(product_id=policy.product_id, display_name="x"),
        catalog.UpdatePolicyRequest(policy_id=policy.policy_id, update_mask=FieldMask(paths=["max_machines"])),
    ):
        error = await refused_unchanged(suite, world, request)
        assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "UNLIMITED_NOT_CONFIRMED")
        assert dict(error.info.metadata) == {"field": "max_machines"}


async def test_a_policy_of_another_product(suite: Suite, world: World) -> None:
    shop, other = await open_shop(world.test), await open_shop(world.test, code="OTHER")
    request = pb.CreateLicenseRequest(policy_id=shop.policy.policy_id, product_id=other.product.product_id)
    error = await refused_unchanged(suite, world, request)
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "POLICY_INCOMPATIBLE")
    assert dict(error.info.metadata) == {"policyId": shop.policy.policy_id}


def _validate(key: str) -> ValidateLicenseRequest:
    request = ValidateLicenseRequest()
    request.license.license_key = key
    return request


ILLEGAL: list[tuple[str, type[Message], str]] = [
    ("active", pb.ReinstateLicenseRequest, "reinstate"),
    ("suspended", pb.SuspendLicenseRequest, "suspend"),
    ("expired", pb.SuspendLicenseRequest, "suspend"),
    ("revoked", pb.RenewLicenseRequest, "renew"),
    ("banned", pb.UpdateLicenseRequest, "update"),
]


@pytest.mark.parametrize(("status", "kind", "action"), ILLEGAL)
async def test_an_illegal_transition_from_every_state(
    suite: Suite, world: World, status: str, kind: type[Message], action: str
) -> None:
    made = await (await open_shop(world.test)).issue_in(status)
    fields: dict[str, Any] = {"license_id": made.license.license_id}
    if action == "update":
        fields["display_name"] = "x"
    error = await refused_unchanged(suite, world, kind(**fields))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "STATE_TRANSITION_INVALID")
    assert dict(error.info.metadata) == {"from": status, "action": action}


async def test_a_request_id_with_another_body(suite: Suite, world: World) -> None:
    shop, request_id = await open_shop(world.test), uuid()
    first = pb.CreateLicenseRequest(policy_id=shop.policy.policy_id, request_id=request_id)
    await send(suite, first, world.test_key)
    for other in (
        pb.CreateLicenseRequest(policy_id=shop.policy.policy_id, request_id=request_id, display_name="x"),
        pb.CreateLicenseRequest(policy_id="pol_nope", request_id=request_id.upper()),
    ):
        error = await refused_unchanged(suite, world, other)
        assert (error.code, error.reason) == (INVALID, "REQUEST_ID_REUSED")
        assert dict(error.info.metadata)["method"].endswith("CreateLicense")


@pytest.mark.parametrize(
    "request_id", ["1", "not-a-uuid", "0199f2aa-7c3b-7d1e-8a55-0242ac12000", "{0199f2aa-7c3b-7d1e-8a55-0242ac120002}"]
)
async def test_a_request_id_that_is_no_uuid(suite: Suite, world: World, request_id: str) -> None:
    request = catalog.CreateProductRequest(code="AB", display_name="x", request_id=request_id)
    await assert_violations(suite, world, request, ("request_id", "UUID_INVALID"))


async def test_a_stale_etag(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    license_ = (await shop.issue()).license
    await world.test.licenses.update(license_.license_id, display_name="y")
    request = pb.UpdateLicenseRequest(license_id=license_.license_id, display_name="z", etag=license_.etag)
    error = await refused_unchanged(suite, world, request)
    assert (error.code, error.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert dict(error.info.metadata) == {"id": license_.license_id}


async def test_a_page_token_of_another_query(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    for _ in range(2):
        await shop.issue()
    token = (await send(suite, pb.ListLicensesRequest(page_size=1), world.test_key)).next_page_token
    request = pb.ListLicensesRequest(page_token=token, product_id=shop.product.product_id)
    error = await refused_unchanged(suite, world, request)
    assert (error.code, error.reason) == (INVALID, "PAGE_TOKEN_INVALID")


SIZED: list[tuple[str, bytes]] = [("CreateProduct", b"\x32"), ("CreateLicense", b"\x3a"), ("ListLicenses", b"\x12")]


def length(size: int) -> bytes:
    """A varint."""
    out = bytearray()
    while size >= 0x80:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*out, size])


def method_of(name: str) -> MethodDescriptor:
    [found] = [method for method in METHODS.values() if method.name == name]
    return found


@pytest.mark.parametrize(("name", "tag"), SIZED)
async def test_a_message_of_two_mebibytes(suite: Suite, world: World, name: str, tag: bytes) -> None:
    raw = tag + length(2 * 1024 * 1024) + b"x" * (2 * 1024 * 1024)
    async with unchanged(suite, world):
        error = await refused_by(send_raw(suite, method_of(name), raw, world.test_key))
    assert (error.code, error.reason, error.violations) == (INVALID, "FIELD_INVALID", [("", "MESSAGE_TOO_LARGE")])


BAD_UTF8: list[tuple[str, bytes, Violations]] = [
    ("CreateProduct", b"\x2a\x02\xc3\x28", [("display_name", "UTF8_INVALID")]),
    ("CreateProduct", b"\x12\x01\xff\x22\x03a\xffb", [("code", "UTF8_INVALID"), ("slug", "UTF8_INVALID")]),
    ("CreateProduct", b"\x3a\x07\x0a\x01k\x12\x02\xff\xfe", [('labels["k"]', "UTF8_INVALID")]),
    ("CreateLicense", b"\x22\x03\x12\x01\xed", [("customer.email", "UTF8_INVALID")]),
    ("CreateLicense", b"\x2a\x01\x80", [("key", "UTF8_INVALID")]),
    ("ValidateLicense", b"\x0a\x04\x0a\x02\xf0\x28", [("license.license_key", "UTF8_INVALID")]),
    ("CreateApiKey", b"\x22\x01a\x22\x01\xfe", [("scopes[1]", "UTF8_INVALID")]),
]


@pytest.mark.parametrize(("name", "raw", "violations"), BAD_UTF8)
async def test_invalid_utf8(suite: Suite, world: World, name: str, raw: bytes, violations: Violations) -> None:
    async with unchanged(suite, world):
        error = await refused_by(send_raw(suite, method_of(name), raw, world.test_key))
    assert (error.code, error.reason, error.violations) == (INVALID, "FIELD_INVALID", violations)


TWICE: list[tuple[str, bytes, Violations]] = [
    ("GetProduct", b"\x0a\x01a\x0a\x01b", [("product_id", "GIVEN_TWICE")]),
    ("GetProduct", b"\x0a\x00\x0a\x01b", [("product_id", "GIVEN_TWICE")]),
    ("DeleteLicense", b"\x12\x01a\x0a\x00\x12\x01b\x12\x01a", [("license_id", "GIVEN_TWICE")]),
    ("UpdateProduct", b"\x12\x01a\x2a\xff\x40" + b"x" * 8319 + b"\x12\x01b", [("product_id", "GIVEN_TWICE")]),
]


@pytest.mark.parametrize(("name", "raw", "violations"), TWICE)
async def test_an_id_given_twice(suite: Suite, world: World, name: str, raw: bytes, violations: Violations) -> None:
    async with unchanged(suite, world):
        error = await refused_by(send_raw(suite, method_of(name), raw, world.test_key))
    assert (error.code, error.reason, error.violations) == (INVALID, "FIELD_INVALID", violations)


@pytest.mark.parametrize("raw", [b"\xff", b"\x0a\x05abc", b"\x07", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"])
async def test_bytes_that_are_no_message(suite: Suite, world: World, raw: bytes) -> None:
    async with unchanged(suite, world):
        error = await refused_by(send_raw(suite, method_of("CreateProduct"), raw, world.test_key))
    assert (error.code, error.reason, error.violations) == (INVALID, "FIELD_INVALID", [("", "MESSAGE_MALFORMED")])


def _with_metadata(text: str) -> catalog.CreateProductRequest:
    request = catalog.CreateProductRequest(code="AB", display_name="x")
    request.metadata.update({"k": {"deep": [text]}})
    return request


NUL: list[tuple[Message, str]] = [
    (catalog.CreateProductRequest(code="AB", display_name="x\0y"), "display_name"),
    (catalog.CreateProductRequest(code="AB", display_name="x", labels={"k": "\0"}), 'labels["k"]'),
    (_with_metadata("a\0b"), 'metadata.fields["k"].struct_value.fields["deep"].list_value.values[0].string_value'),
    (pb.SuspendLicenseRequest(license_id="lic_1", reason="\0"), "reason"),
    (pb.CreateLicenseRequest(policy_id="pol_1", customer=pb.CustomerRef(email="a\0@b")), "customer.email"),
    (_validate("SHOP-\0"), "license.license_key"),
    (pb.ListLicensesRequest(customer_email="\0"), "customer_email"),
]


@pytest.mark.parametrize(("request_", "path"), NUL)
async def test_nul_in_a_string(suite: Suite, world: World, request_: Message, path: str) -> None:
    await assert_violations(suite, world, request_, (path, "NUL_IN_STRING"))


@pytest.mark.parametrize("name", ["CreateProduct", "ValidateLicense"])
async def test_a_deadline_too_short(suite: Suite, world: World, name: str) -> None:
    requests: dict[str, Message] = {
        "CreateProduct": catalog.CreateProductRequest(code="AB", display_name="x"),
        "ValidateLicense": _validate("SHOP-0000-0000-0000-0000"),
    }
    async with unchanged(suite, world):
        error = await refused_for_time(
            lambda: send(suite, requests[name], world.test_key, timeout_s=0.003)
        )  # on the wire, up to 2 ms more
    assert (error.code, error.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT")
    assert dict(error.info.metadata) == {"requiredMs": "5"}


async def test_a_read_that_runs_out_of_time_is_told_so_in_time(suite: Suite, world: World) -> None:
    """Its table is locked away: the read can only wait."""
    async with held(suite, "LOCK TABLE license.product IN ACCESS EXCLUSIVE MODE"):
        request = catalog.GetProductRequest(product_id="prod_1")
        error = await refused_for_time(lambda: send(suite, request, world.test_key, timeout_s=0.1), tries=10)
    assert (error.code, error.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT")


MANY: list[tuple[Message, Violations]] = [
    (
        catalog.CreateProductRequest(
            request_id="1", code="pro", slug="My_App", url="ftp://x", external_id="x" * 256, labels={"A": "x"}
        ),
        [
            ("request_id", "UUID_INVALID"),
            ("code", "CODE_INVALID"),
            ("external_id", "LENGTH_OUT_OF_RANGE"),
            ("slug", "SLUG_INVALID"),
            ("display_name", "REQUIRED"),
            ("url", "URL_INVALID"),
            ('labels["A"]', "LABEL_INVALID"),
        ],
    ),
    (
        pb.CreateLicenseRequest(
            customer=pb.CustomerRef(email="nobody", display_name="x" * 256), key="k", start_time=Timestamp(nanos=-1)
        ),
        [
            ("policy_id", "REQUIRED"),
            ("customer.email", "EMAIL_INVALID"),
            ("customer.display_name", "LENGTH_OUT_OF_RANGE"),
            ("key", "LICENSE_KEY_INVALID"),
            ("start_time", "TIMESTAMP_INVALID"),
        ],
    ),
    (
        pb.ReinstateLicenseRequest(request_id="x", expire_time=Timestamp(seconds=2**60), reason="x" * 256),
        [
            ("request_id", "UUID_INVALID"),
            ("license_id", "REQUIRED"),
            ("reason", "LENGTH_OUT_OF_RANGE"),
            ("expire_time", "TIMESTAMP_INVALID"),
        ],
    ),
    (
        account.CreateApiKeyRequest(scopes=["x", "keys:read", "y"], display_name="x" * 256),
        [("display_name", "LENGTH_OUT_OF_RANGE"), ("scopes[0]", "SCOPE_UNKNOWN"), ("scopes[2]", "SCOPE_UNKNOWN")],
    ),
    (
        pb.ListLicensesRequest(page_size=-1, page_token="x" * 513, product_id="x" * 65),
        [
            ("page_size", "OUT_OF_RANGE"),
            ("page_token", "LENGTH_OUT_OF_RANGE"),
            ("product_id", "LENGTH_OUT_OF_RANGE"),
        ],
    ),
]


@pytest.mark.parametrize(("request_", "violations"), MANY)
async def test_many_bad_fields_are_named_at_once(
    suite: Suite, world: World, request_: Message, violations: Violations
) -> None:
    await assert_violations(suite, world, request_, *violations)


async def test_more_bad_fields_than_an_answer_holds_are_at_least_counted(suite: Suite, world: World) -> None:
    request = account.CreateApiKeyRequest(scopes=["nope"] * 5000)
    error = await refused_unchanged(suite, world, request)
    assert dict(error.info.metadata) == {"violations": "5000"}
    assert error.violations[0] == ("scopes[0]", "SCOPE_UNKNOWN")
    assert 1 < len(error.violations) < 5000


@pytest.mark.parametrize(
    ("seconds", "field"),
    [(-(2**62), "start_time"), (-62135596800, "start_time"), (2**62, "expire_time"), (253402300799, "expire_time")],
)
async def test_times_that_no_calendar_has(suite: Suite, world: World, seconds: int, field: str) -> None:
    shop = await open_shop(world.test)
    license_id = (await shop.issue()).license.license_id
    moment: dict[str, Any] = {field: Timestamp(seconds=seconds)}
    for request in (
        pb.CreateLicenseRequest(policy_id=shop.policy.policy_id, **moment),
        pb.UpdateLicenseRequest(license_id=license_id, **moment),
    ):
        await assert_violations(suite, world, request, (field, "TIMESTAMP_INVALID"))


async def test_the_first_and_the_last_moment_of_the_calendar_are_kept(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    first, last = Timestamp(seconds=-62135596799), Timestamp(seconds=253402300798, nanos=999_999_000)
    request = pb.CreateLicenseRequest(policy_id=shop.policy.policy_id, start_time=first, expire_time=last)
    made = await send(suite, request, world.test_key)
    found = await world.test.licenses.get(made.license.license_id)
    assert (found.start_time, found.expire_time) == (first, last)
    assert (await world.test.validate(key=made.key)).valid


REFS: list[tuple[pb.CustomerRef, Violations]] = [
    (pb.CustomerRef(), [("customer.ref", "EXACTLY_ONE")]),
    (pb.CustomerRef(email=""), [("customer.email", "REQUIRED")]),
    (pb.CustomerRef(subject_ref=""), [("customer.subject_ref", "REQUIRED")]),
    (pb.CustomerRef(email="a@b@c"), [("customer.email", "EMAIL_INVALID")]),
    (pb.CustomerRef(email="a b@c"), [("customer.email", "EMAIL_INVALID")]),
    (pb.CustomerRef(email="x" * 65 + "@example.com"), [("customer.email", "EMAIL_INVALID")]),
    (pb.CustomerRef(subject_ref="x" * 256), [("customer.subject_ref", "LENGTH_OUT_OF_RANGE")]),
]


@pytest.mark.parametrize(("ref", "violations"), REFS)
async def test_a_customer_that_is_named_badly(
    suite: Suite, world: World, ref: pb.CustomerRef, violations: Violations
) -> None:
    shop = await open_shop(world.test)
    request = pb.CreateLicenseRequest(policy_id=shop.policy.policy_id, customer=ref)
    await assert_violations(suite, world, request, *violations)


@pytest.mark.parametrize("text", ["'; DROP TABLE license.license; --", "%", "\\", "$1", '{"a":1}', "𝕏\u202e\ufeff"])
async def test_text_is_only_text(world: World, text: str) -> None:
    shop = await open_shop(world.test)
    made = await shop.issue(display_name=text, external_id=text, subject_ref=text, metadata={text: text})
    found = await world.test.licenses.get(external_id=text)
    assert (found.license_id, found.display_name) == (made.license.license_id, text)
