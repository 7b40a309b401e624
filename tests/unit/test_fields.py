"""The constraints of requests: each refuses what its words say, and all bad fields are named at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st
from lictor.license.v1.catalog_service_pb2 import CreatePolicyRequest, CreateProductRequest, UpdatePolicyRequest
from lictor.license.v1.license_service_pb2 import CreateLicenseRequest, CustomerRef, GetLicenseRequest
from lictor.license.v1.license_service_pb2 import ListLicensesRequest as ListRequest
from lictor.license.v1.license_service_pb2 import UpdateLicenseRequest as UpdateRequest
from lictor.license.v1.validation_service_pb2 import ValidateLicenseRequest

from services.license import fields as license_fields
from services.license.fields import check as check_request
from services.machine import fields as machine_fields
from shared.errors import DomainError, Reason
from shared.rpc import fields as f
from tests.helpers.builders import METHODS, request_class

UUID = "0199f2aa-7c3b-7d1e-8a55-0242ac120002"


def bad(check: f.Check, message: Message) -> list[tuple[str, str]]:
    return [(found.field, found.reason) for found in check(message)]


def struct(value: dict[str, Any]) -> Struct:
    made = Struct()
    made.update(value)
    return made


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "REQUIRED"),
        ("ab", None),
        ("abc", None),
        ("a", "LENGTH_OUT_OF_RANGE"),
        ("abcd", "LENGTH_OUT_OF_RANGE"),
        ("äöü", None),
    ],
)
def test_text_is_bounded_in_characters(value: str, reason: str | None) -> None:
    check = f.text("display_name", required=True, min_chars=2, max_chars=3)
    expected = [] if reason is None else [("display_name", reason)]
    assert bad(check, CreateProductRequest(display_name=value)) == expected


def test_text_that_is_not_required_may_be_empty_and_is_255_characters_at_most() -> None:
    check = f.text("display_name")
    for length, good in ((0, True), (255, True), (256, False)):
        assert (not bad(check, CreateProductRequest(display_name="x" * length))) is good


@pytest.mark.parametrize("value", ["Pro", "my_app", "my app", "app\n", "\napp", "app\x00", "äpp", "x" * 64])
def test_a_pattern_must_match_the_whole_text(value: str) -> None:
    check = f.text("slug", pattern=r"[a-z0-9-]{1,63}", reason="SLUG_INVALID")
    assert bad(check, CreateProductRequest(slug=value)) == [("slug", "SLUG_INVALID")]
    assert bad(check, CreateProductRequest(slug="my-app-2")) == []


@pytest.mark.parametrize("value", [UUID, UUID.upper(), UUID.replace("-", "")])
def test_a_request_id_is_a_uuid(value: str) -> None:
    assert bad(f.request_id(), CreateProductRequest(request_id=value)) == []


@pytest.mark.parametrize(
    "value", ["1", UUID + "0", UUID[:-1], "{" + UUID + "}", "urn:uuid:" + UUID, UUID + "\n", "g" * 32]
)
def test_nothing_else_is(value: str) -> None:
    assert bad(f.request_id(), CreateProductRequest(request_id=value)) == [("request_id", "UUID_INVALID")]


def test_a_request_id_may_be_required() -> None:
    assert bad(f.request_id(required=True), CreateProductRequest()) == [("request_id", "REQUIRED")]
    assert bad(f.request_id(), CreateProductRequest()) == []


@pytest.mark.parametrize(
    ("license_id", "external_id", "good"), [("a", "", 1), ("", "b", 1), ("", "", 0), ("a", "b", 0)]
)
def test_a_resource_is_named_in_one_way(license_id: str, external_id: str, good: int) -> None:
    request = GetLicenseRequest(license_id=license_id, external_id=external_id)
    assert bad(f.one_of_id("license_id"), request) == ([] if good else [("license_id", "EXACTLY_ONE")])


@pytest.mark.parametrize(
    ("seconds", "nanos", "reason"),
    [
        (59, 999_999_999, "DURATION_OUT_OF_RANGE"),
        (60, 0, None),
        (3600, 0, None),
        (3600, 1000, "DURATION_OUT_OF_RANGE"),
        (0, 0, "DURATION_OUT_OF_RANGE"),
        (-60, 0, "DURATION_OUT_OF_RANGE"),
        (2**62, 0, "DURATION_OUT_OF_RANGE"),
        (60, -1, "DURATION_INVALID"),
        (-60, 1, "DURATION_INVALID"),
        (60, 1_000_000_000, "DURATION_INVALID"),
    ],
)
def test_a_duration_is_well_formed_and_within_bounds(seconds: int, nanos: int, reason: str | None) -> None:
    check = f.duration("duration", least=timedelta(minutes=1), most=timedelta(hours=1))
    request = CreatePolicyRequest(duration=Duration(seconds=seconds, nanos=nanos))
    assert bad(check, request) == ([] if reason is None else [("duration", reason)])
    assert bad(check, CreatePolicyRequest()) == []


@pytest.mark.parametrize(
    ("seconds", "nanos", "good"),
    [
        (-62135596799, 0, True),
        (-62135596800, 0, False),
        (253402300798, 999_999_999, True),
        (253402300799, 0, False),
        (0, -1, False),
        (0, 1_000_000_000, False),
        (2**62, 0, False),
    ],
)
def test_a_time_is_from_year_1_to_9999_without_its_first_and_last_second(seconds: int, nanos: int, good: bool) -> None:
    request = CreateLicenseRequest(start_time=Timestamp(seconds=seconds, nanos=nanos))
    assert bad(f.timestamp("start_time"), request) == ([] if good else [("start_time", "TIMESTAMP_INVALID")])
    if good:
        assert f.to_datetime(request, "start_time") is not None


def test_times_and_durations_come_to_the_microsecond_and_absent_is_none() -> None:
    request = CreateLicenseRequest(start_time=Timestamp(seconds=1, nanos=1999))
    assert f.to_datetime(request, "start_time") == datetime(1970, 1, 1, 0, 0, 1, 1, UTC)
    assert f.to_datetime(request, "expire_time") is None
    policy = CreatePolicyRequest(duration=Duration(seconds=1, nanos=2000))
    assert f.to_timedelta(policy, "duration") == timedelta(seconds=1, microseconds=2)
    assert f.to_timedelta(policy, "offline_max_ttl") is None


@pytest.mark.parametrize(("value", "good"), [(None, True), (1, True), (2**31 - 1, True), (0, False), (-1, False)])
def test_a_limit_has_a_lower_bound_and_zero_is_not_absent(value: int | None, good: bool) -> None:
    request = CreatePolicyRequest(max_machines=value)
    assert bad(f.number("max_machines", least=1), request) == ([] if good else [("max_machines", "OUT_OF_RANGE")])


def test_an_enum_value_must_be_known() -> None:
    request = CreatePolicyRequest()
    request.template = cast("Any", 5)
    assert bad(f.known_enum("template"), request) == []
    request.template = cast("Any", 99)
    assert bad(f.known_enum("template"), request) == [("template", "ENUM_UNKNOWN")]


@pytest.mark.parametrize(("size", "limit"), [(0, 50), (1, 1), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)])
def test_a_page_has_a_default_and_a_cap(size: int, limit: int) -> None:
    assert bad(f.page_size(), ListRequest(page_size=size)) == []
    assert f.page_limit(size) == limit


@pytest.mark.parametrize("size", [-1, -(2**31)])
def test_a_page_is_never_negative(size: int) -> None:
    assert bad(f.page_size(), ListRequest(page_size=size)) == [("page_size", "OUT_OF_RANGE")]


@pytest.mark.parametrize("key", ["a", "a.b_c-9", "x" * 63])
def test_good_labels(key: str) -> None:
    assert bad(f.labels(), CreateProductRequest(labels={key: "v" * 255})) == []


@pytest.mark.parametrize("key", ["", "A", "a b", "ä", "x" * 64, "a\n"])
def test_bad_label_keys(key: str) -> None:
    [(field, reason)] = bad(f.labels(), CreateProductRequest(labels={key: "v"}))
    assert (field.startswith("labels["), reason) == (True, "LABEL_INVALID")


def test_labels_are_64_at_most_with_255_characters_each() -> None:
    full = {f"k{n}": "v" for n in range(64)}
    assert bad(f.labels(), CreateProductRequest(labels=full)) == []
    assert bad(f.labels(), CreateProductRequest(labels={**full, "k64": "v"})) == [("labels", "TOO_MANY")]
    assert [reason for _, reason in bad(f.labels(), CreateProductRequest(labels={"k": "v" * 256}))] == ["LABEL_INVALID"]


def sized(size: int) -> Struct:
    """Metadata of exactly `size` bytes."""
    fitted = struct({"k": "v" * (size - 20)})
    fitted.fields["k"].string_value += "v" * (size - fitted.ByteSize())
    assert fitted.ByteSize() == size
    return fitted


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        pytest.param({}, None, id="none"),
        pytest.param({"a": {"b": {"c": {"d": 1}}}}, None, id="4 deep"),
        pytest.param({"a": {"b": {"c": {"d": {}}}}}, "TOO_DEEP", id="5 deep"),
        pytest.param({"a": [[[1]]]}, None, id="4 deep with lists"),
        pytest.param({"a": [[[[1]]]]}, "TOO_DEEP", id="5 deep with lists"),
        pytest.param({f"k{n}": n for n in range(64)}, None, id="64 keys"),
        pytest.param({f"k{n}": n for n in range(65)}, "TOO_MANY", id="65 keys"),
        pytest.param({"a": {f"k{n}": n for n in range(64)}}, "TOO_MANY", id="65 keys in all"),
        pytest.param({"a": [{f"k{n}": n for n in range(64)}]}, "TOO_MANY", id="65 keys, some in a list"),
        pytest.param({"a": float("inf")}, "OUT_OF_RANGE", id="infinity"),
        pytest.param({"a": [{"b": float("nan")}]}, "OUT_OF_RANGE", id="not a number, deep"),
    ],
)
def test_metadata(metadata: dict[str, Any], reason: str | None) -> None:
    expected = [] if reason is None else [("metadata", reason)]
    assert bad(f.metadata(), CreateProductRequest(metadata=struct(metadata))) == expected


def test_metadata_is_16_kib_at_most() -> None:
    assert bad(f.metadata(), CreateProductRequest(metadata=sized(16 * 1024))) == []
    assert bad(f.metadata(), CreateProductRequest(metadata=sized(16 * 1024 + 1))) == [("metadata", "TOO_LARGE")]


json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=3), json, max_size=3))
def test_metadata_that_passes_can_be_stored_as_json(metadata: dict[str, Any]) -> None:
    request = CreateProductRequest(metadata=struct(metadata))
    if not bad(f.metadata(), request):
        again = struct(MessageToDict(request.metadata))
        assert again == request.metadata


def test_a_nested_message_is_checked_where_it_is_set_with_its_path() -> None:
    check = f.nested("customer", f.text("subject_ref", required=True), f.text("display_name", max_chars=1))
    assert bad(check, CreateLicenseRequest()) == []
    assert bad(check, CreateLicenseRequest(customer=CustomerRef(display_name="xx"))) == [
        ("customer.subject_ref", "REQUIRED"),
        ("customer.display_name", "LENGTH_OUT_OF_RANGE"),
    ]


KNOWN = ("display_name", "external_id", "labels")
UPDATES: list[tuple[UpdateRequest, set[str], list[str]]] = [
    (UpdateRequest(update_mask=FieldMask(paths=["display_name"]), external_id="e"), {"display_name"}, []),
    (UpdateRequest(update_mask=FieldMask(paths=["*"])), set(KNOWN), []),
    (UpdateRequest(display_name="n", labels={"a": "b"}), {"display_name", "labels"}, []),
    (UpdateRequest(update_mask=FieldMask(), display_name="n"), {"display_name"}, []),
    (UpdateRequest(license_id="lic_1", etag="r1"), set(), ["REQUIRED"]),
    (UpdateRequest(update_mask=FieldMask(paths=["etag"])), set(), ["FIELD_UNKNOWN"]),
    (UpdateRequest(update_mask=FieldMask(paths=["status", "no.such", "labels"])), {"labels"}, ["FIELD_UNKNOWN"] * 2),
]


@pytest.mark.parametrize(("request_", "changed", "reasons"), UPDATES)
def test_masks(request_: UpdateRequest, changed: set[str], reasons: list[str]) -> None:
    assert f.masked(request_, KNOWN) == changed
    assert bad(f.mask(KNOWN), request_) == [("update_mask", reason) for reason in reasons]


def test_a_masked_field_may_have_to_hold_something() -> None:
    check = f.mask(KNOWN, never_empty=("display_name",))
    assert bad(check, UpdateRequest(update_mask=FieldMask(paths=["*"]))) == [("display_name", "REQUIRED")]
    assert bad(check, UpdateRequest(update_mask=FieldMask(paths=["external_id"]))) == []


def test_all_bad_fields_are_named_at_once() -> None:
    request = CreateProductRequest(request_id="1", slug="Pro", url="ftp://x", labels={"A": ""})
    with pytest.raises(DomainError) as caught:
        check_request(request)
    assert caught.value.reason is Reason.FIELD_INVALID
    assert caught.value.metadata == {"violations": "6"}
    assert [v.field for v in caught.value.violations] == [
        "request_id", "code", "slug", "display_name", "url", 'labels["A"]',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://a", None),
        ("https://example.com/pro?x=1#y", None),
        ("https://" + "x" * 2040, None),
        ("http://" + "x" * 2041, None),
        ("http://" + "x" * 2042, "LENGTH_OUT_OF_RANGE"),
        ("ftp://example.com", "URL_INVALID"),
        ("javascript:alert(1)", "URL_INVALID"),
        ("https://a b", "URL_INVALID"),
        ("https://", "URL_INVALID"),
    ],
)
def test_urls(url: str, reason: str | None) -> None:
    request = CreateProductRequest(code="AB", display_name="x", url=url)
    if reason is None:
        check_request(request)
        return
    with pytest.raises(DomainError) as caught:
        check_request(request)
    assert [(v.field, v.reason) for v in caught.value.violations] == [("url", reason)]


def test_no_violation_repeats_a_secret() -> None:
    secret = "sécret key"
    for request in (CreateLicenseRequest(policy_id="pol_1", key=secret), _selecting("x" * 256 + secret)):
        with pytest.raises(DomainError) as caught:
            check_request(request)
        assert secret not in str(caught.value) + str(caught.value.violations)


def _selecting(key: str) -> ValidateLicenseRequest:
    request = ValidateLicenseRequest()
    request.license.license_key = key
    return request


def test_contradictions() -> None:
    day = Duration(seconds=86400)
    for request, field in (
        (CreatePolicyRequest(product_id="p", display_name="x", duration=day, perpetual=True), "perpetual"),
        (
            CreatePolicyRequest(product_id="p", display_name="x", max_machines=1, allow_unlimited=True),
            "allow_unlimited",
        ),
        (UpdatePolicyRequest(policy_id="p", max_machines=1, allow_unlimited=True), "allow_unlimited"),
    ):
        with pytest.raises(DomainError) as caught:
            check_request(request)
        assert [(v.field, v.reason) for v in caught.value.violations] == [(field, "CONTRADICTION")]


TABLES = {**license_fields.TABLES, **machine_fields.TABLES}


def test_every_request_of_the_contract_has_a_table() -> None:
    described = {cast("Descriptor", kind.DESCRIPTOR).full_name for kind in TABLES}
    assert described == set(METHODS) | {"lictor.license.v1.SignFileRequest"}  # of a service, no client sends that


UNBOUNDED = {"google.protobuf.Struct", "google.protobuf.FieldMask"}


def strings(descriptor: Descriptor) -> Iterator[tuple[str, Callable[[Message, str], None]]]:
    """Every plain string in a request: its path, and what sets it."""
    for field in descriptor.fields:
        if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
            yield field.name, lambda message, value, name=field.name: setattr(message, name, value)
        elif field.message_type is not None and not field.is_repeated and field.message_type.full_name not in UNBOUNDED:
            for path, put in strings(field.message_type):
                yield (
                    f"{field.name}.{path}",
                    lambda message, value, name=field.name, put=put: put(getattr(message, name), value),
                )


STRINGS = [
    pytest.param(request_class(method), path, put, id=f"{method.name}.{path}")
    for method in METHODS.values()
    for path, put in strings(method.input_type)
]


@pytest.mark.parametrize(("request_type", "path", "put"), STRINGS)
def test_no_string_of_any_request_is_unbounded(
    request_type: type[Message], path: str, put: Callable[[Message, str], None]
) -> None:
    request = request_type()
    put(request, "x" * 4096)
    with pytest.raises(DomainError) as caught:
        f.check(request, TABLES[request_type])
    assert path in {violation.field for violation in caught.value.violations}
