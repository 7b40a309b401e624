"""Every term of a policy: taken, kept, returned, changed, cleared, and refused where it makes no sense."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from lictor import InvalidArgument
from lictor.license.v1 import catalog_service_pb2 as pb
from lictor.license.v1 import policy_terms_pb2 as words

from services.license.policy_terms import TERM_NAMES
from tests.helpers.builders import events, open_shop, refused, send, unchanged
from tests.helpers.suite import Suite, World

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
CENTURY = 36500 * DAY

TERMS: Final[dict[str, tuple[Any, Any, Any]]] = {
    # What it generally is, a value, and another one.
    "duration": (None, 90 * DAY, HOUR),
    "is_trial": (False, True, False),
    "trial_duration": (None, 7 * DAY, CENTURY),
    "expiration_strategy": ("RESTRICT_ACCESS", "REVOKE", "MAINTAIN_ACCESS"),
    "grace_period": (timedelta(0), timedelta(microseconds=1), 365 * DAY),
    "expiration_basis": ("FROM_CREATION", "FROM_FIRST_VALIDATION", "FROM_FIRST_ACTIVATION"),
    "renewal_basis": ("FROM_EXPIRY", "FROM_NOW", "FROM_NOW_IF_EXPIRED"),
    "transfer_strategy": ("KEEP_EXPIRY", "RESET_EXPIRY", "KEEP_EXPIRY"),
    "max_machines": (None, 1, 2**31 - 1),
    "max_uses": (None, 1, 2**63 - 1),
    "uses_counted_by": ("EXPLICIT", "VALIDATION", "EXPLICIT"),
    "overage_strategy": ("NO_OVERAGE", "ALLOW_1_25X", "ALWAYS_ALLOW"),
    "floating": (False, True, False),
    "require_fingerprint": (True, False, True),
    "require_heartbeat": (False, True, False),
    "heartbeat_interval": (600 * timedelta(seconds=1), timedelta(seconds=60), 90 * DAY),
    "offline_allowed": (True, False, True),
    "offline_max_ttl": (14 * DAY, HOUR, 90 * DAY),
    "require_check_in": (False, True, False),
    "check_in_interval": (None, "DAY", "YEAR"),
    "check_in_count": (1, 365, 2),
    "require_product_scope": (False, True, False),
    "require_policy_scope": (False, True, False),
    "require_user_scope": (False, True, False),
    "protected": (False, True, False),
    "authentication": ("LICENSE", "TOKEN", "NONE"),
    "overridable": (
        [],
        ["MAX_USES", "MAX_MACHINES"],
        ["OFFLINE_MAX_TTL", "MAX_USERS", "MAX_CORES", "MAX_MEMORY_BYTES", "MAX_DISK_BYTES", "MAX_PROCESSES"],
    ),
    "stale_ok_for": (timedelta(0), timedelta(microseconds=1), DAY),
    "strict": (True, False, True),
    "max_users": (None, 1, 2**31 - 1),
    "max_cores": (None, 1, 2**31 - 1),
    "max_memory_bytes": (None, 1, 2**63 - 1),
    "max_disk_bytes": (None, 1, 2**63 - 1),
    "max_processes": (None, 1, 2**31 - 1),
    "machine_uniqueness": ("UNIQUE_PER_LICENSE", "UNIQUE_PER_POLICY", "UNIQUE_PER_ACCOUNT"),
    "machine_matching": ("MATCH_ANY", "MATCH_TWO", "MATCH_ALL"),
    "component_uniqueness": ("UNIQUE_PER_MACHINE", "UNIQUE_PER_LICENSE", "UNIQUE_PER_ACCOUNT"),
    "component_matching": ("MATCH_ANY", "MATCH_MOST", "MATCH_ALL"),
    "machine_leasing": ("PER_LICENSE", "PER_USER", "PER_LICENSE"),
    "process_leasing": ("PER_MACHINE", "PER_LICENSE", "PER_USER"),
    "seat_acquire": ("REJECT", "EVICT_DEAD_FIRST", "REJECT"),
    "require_machine_scope": (False, True, False),
    "require_components_scope": (False, True, False),
    "heartbeat_basis": ("FROM_FIRST_PING", "FROM_CREATION", "FROM_FIRST_PING"),
    "heartbeat_cull": ("DEACTIVATE_DEAD", "KEEP_DEAD", "DEACTIVATE_DEAD"),
    "heartbeat_resurrection": ("NO_REVIVE", "ALWAYS_REVIVE", "REVIVE_15_MINUTES"),
    "max_transfers": (None, 0, 2**31 - 1),
    "transfer_period": (30 * DAY, HOUR, 365 * DAY),
    "allow_machine_transfer": (False, True, False),
}
COMPANIONS: Final[dict[str, Any]] = {
    # Without these some terms make no sense.
    "duration": 30 * DAY, "is_trial": True, "max_uses": 5, "check_in_interval": "WEEK", "max_machines": 3,
    "max_processes": 4, "floating": True, "heartbeat_cull": "KEEP_DEAD", "allow_machine_transfer": True,
}  # fmt: skip
WORDS: Final = {
    name: field.enum_type
    for name, field in pb.Policy.DESCRIPTOR.fields_by_name.items()
    if name in TERM_NAMES and field.enum_type is not None
}


def test_the_tables_name_every_term() -> None:
    assert set(TERMS) == TERM_NAMES
    for name in TERM_NAMES:
        for message in (pb.Policy, pb.CreatePolicyRequest):
            assert name in message.DESCRIPTOR.fields_by_name
        assert (name in pb.UpdatePolicyRequest.DESCRIPTOR.fields_by_name) is (name != "expiration_basis")


def plain(policy: Any, name: str) -> Any:
    """A term of a message as plain values; None where it is absent."""
    value = getattr(policy, name)
    if name in WORDS:
        numbers = WORDS[name].values_by_number
        if name == "overridable":
            return [numbers[one].name for one in value]
        return numbers[value].name if value else None
    if policy.DESCRIPTOR.fields_by_name[name].has_presence and not policy.HasField(name):
        return None
    return value.ToTimedelta() if isinstance(value, Duration) else value


def terms_of(policy: pb.Policy) -> dict[str, Any]:
    return {name: plain(policy, name) for name in TERMS}


async def test_what_is_left_out_is_as_it_generally_is(world: World) -> None:
    product_id = (await open_shop(world.test)).product.product_id
    made = await world.test.policies.create(product_id=product_id, display_name="x", allow_unlimited=True)
    assert terms_of(made.policy) == {name: values[0] for name, values in TERMS.items()}
    assert await world.test.policies.get(made.policy.policy_id) == made.policy


@pytest.mark.parametrize("turn", [1, 2])
async def test_all_terms_at_once(suite: Suite, world: World, turn: int) -> None:
    given: dict[str, Any] = {name: values[turn] for name, values in TERMS.items()} | {"is_trial": True}
    product_id = (await open_shop(world.test)).product.product_id
    made = (await world.test.policies.create(product_id=product_id, display_name="x", **given)).policy
    assert terms_of(made) == given
    assert await world.test.policies.get(made.policy_id) == made
    assert made in [policy async for policy in world.test.policies.list()]
    (created,) = await events(suite, made.policy_id)
    assert created["type"] == "policy.created"
    assert {name: created["data"][name] for name in TERMS} == {name: json_of(given[name]) for name in TERMS}


def json_of(value: Any) -> Any:
    return value.total_seconds() if isinstance(value, timedelta) else value


async def test_a_term_changes_alone_and_is_cleared_to_what_it_generally_is(suite: Suite, world: World) -> None:
    policy = (await open_shop(world.test, template="custom", **COMPANIONS)).policy
    policies, was, told = world.test.policies, terms_of(policy), 1
    for name in sorted(set(TERMS) - {"expiration_basis"}):
        general, *values = TERMS[name]
        for value in (*values, None, was[name]):
            changes: dict[str, Any] = {name: value, "allow_unlimited": (name, value) == ("max_machines", None)}
            policy = (await policies.update(policy.policy_id, **changes)).policy
            told += 1
            assert terms_of(policy) == was | {name: general if value is None else value}, (name, value)
            assert policy.revision == told
    assert await policies.get(policy.policy_id) == policy
    last = (await events(suite, policy.policy_id))[-1]
    assert (last["type"], last["subject_seq"]) == ("policy.updated", told)
    assert {name: last["data"][name] for name in TERMS} == {name: json_of(was[name]) for name in TERMS}


async def test_the_basis_cannot_change(suite: Suite, world: World) -> None:
    policy = (await open_shop(world.test, expiration_basis="FROM_FIRST_USE")).policy
    with pytest.raises(ValueError, match="expiration_basis"):
        await world.test.policies.update(policy.policy_id, expiration_basis="FROM_CREATION")
    request = pb.UpdatePolicyRequest(
        policy_id=policy.policy_id, update_mask=FieldMask(paths=["expiration_basis", "grace_period"])
    )
    assert await violations(suite, world, request) == [("update_mask", "FIELD_UNKNOWN")]
    everything = pb.UpdatePolicyRequest(
        policy_id=policy.policy_id, update_mask=FieldMask(paths=["*"]), display_name="x", allow_unlimited=True,
        duration=Duration(seconds=3600),
    )  # fmt: skip
    after = (await send(suite, everything, world.test_key)).policy
    general = {name: values[0] for name, values in TERMS.items()}
    assert terms_of(after) == general | {"duration": HOUR, "expiration_basis": "FROM_FIRST_USE"}


async def violations(suite: Suite, world: World, request: Any) -> list[tuple[str, str]]:
    """What a request is refused for, which changed nothing."""
    async with unchanged(suite, world):
        error = await refused(suite, request, world.test_key)
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    return error.violations


def bad_values() -> Iterator[tuple[str, Any, str]]:
    """(term, value, reason): just outside the bounds, and far."""
    micro = timedelta(microseconds=1)
    for name, least, most in (
        ("duration", HOUR, CENTURY), ("trial_duration", HOUR, CENTURY), ("grace_period", timedelta(0), 365 * DAY),
        ("heartbeat_interval", timedelta(minutes=1), 90 * DAY), ("offline_max_ttl", HOUR, 90 * DAY),
        ("stale_ok_for", timedelta(0), DAY),
        ("transfer_period", HOUR, 365 * DAY),
    ):  # fmt: skip
        for value in (least - micro, -CENTURY, most + micro, 2 * CENTURY):
            yield name, value, "DURATION_OUT_OF_RANGE"
        yield name, Duration(seconds=7200, nanos=-1), "DURATION_INVALID"
        yield name, Duration(seconds=7200, nanos=10**9), "DURATION_INVALID"
    for name, values in (
        ("max_machines", (0, -1, -(2**31))), ("max_uses", (0, -1, -(2**63))), ("check_in_count", (0, -1, 366, 2**31 - 1)),
        ("max_users", (0, -(2**31))), ("max_cores", (0, -(2**31))), ("max_memory_bytes", (0, -(2**63))),
        ("max_disk_bytes", (0, -(2**63))), ("max_processes", (0, -(2**31))), ("max_transfers", (-1, -(2**31))),
    ):  # fmt: skip
        for value in values:
            yield name, value, "OUT_OF_RANGE"
    for name in sorted(set(WORDS) - {"overridable"}):
        yield name, 99, "ENUM_UNKNOWN"
        yield name, -1, "ENUM_UNKNOWN"


def request_with(kind: type[Any], base: dict[str, Any], **given: Any) -> Any:
    """A request for a policy with these terms; a timedelta may be out of bounds."""
    request = kind(display_name="x", **base)
    for name, value in given.items():
        if isinstance(value, timedelta):
            getattr(request, name).FromTimedelta(value)
        elif isinstance(value, Duration):
            getattr(request, name).CopyFrom(value)
        elif name == "overridable":
            request.overridable.extend(value)
        else:
            setattr(request, name, value)
    return request


async def bases(world: World) -> list[tuple[type[Any], dict[str, Any]]]:
    """The two requests that take terms, as they are without any."""
    shop = await open_shop(world.test)
    create = {"product_id": shop.product.product_id, "template": pb.PolicyTemplate.desktop_app}
    return [(pb.CreatePolicyRequest, create), (pb.UpdatePolicyRequest, {"policy_id": shop.policy.policy_id})]


async def test_bad_values_are_refused_one_by_one(suite: Suite, world: World) -> None:
    kinds = await bases(world)
    tried = set[str]()
    async with unchanged(suite, world):
        for name, value, reason in bad_values():
            for kind, base in kinds:
                if name in kind.DESCRIPTOR.fields_by_name:
                    error = await refused(suite, request_with(kind, base, **{name: value}), world.test_key)
                    assert (error.reason, error.violations) == ("FIELD_INVALID", [(name, reason)]), (kind, name, value)
                    tried.add(name)
    assert tried == {name for name, (general, *_) in TERMS.items() if not isinstance(general, bool | list)}


async def test_bad_values_are_refused_all_at_once(suite: Suite, world: World) -> None:
    first: dict[str, tuple[Any, str]] = {}
    for name, value, reason in bad_values():
        first.setdefault(name, (value, reason))
    for kind, base in await bases(world):
        bad = [(name, *found) for name, found in first.items() if name in kind.DESCRIPTOR.fields_by_name]
        for some in (bad[::2], bad[1::2]):  # all of them together are more than an error has room for
            values = {name: value for name, value, _ in some}
            found = await violations(suite, world, request_with(kind, base, **values, overridable=[0, 1, 1]))
            expected = [(name, reason) for name, _, reason in some]
            expected += [("overridable[0]", "ENUM_UNKNOWN"), ("overridable[2]", "DUPLICATE")]
            assert sorted(found) == sorted(expected)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ([0], [("overridable[0]", "ENUM_UNKNOWN")]),
        ([9], [("overridable[0]", "ENUM_UNKNOWN")]),
        ([1, 2, 1], [("overridable[2]", "DUPLICATE")]),
        (
            [3, 3, 99, 3],
            [("overridable[1]", "DUPLICATE"), ("overridable[2]", "ENUM_UNKNOWN"), ("overridable[3]", "DUPLICATE")],
        ),
    ],
)
async def test_what_can_be_overridden_is_known_and_named_once(
    suite: Suite, world: World, limits: list[int], expected: list[tuple[str, str]]
) -> None:
    for kind, base in await bases(world):
        assert await violations(suite, world, request_with(kind, base, overridable=limits)) == expected


CONTRADICTIONS: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "trial_duration": ({"trial_duration": DAY}, "CONTRADICTION"),
    "uses_counted_by": ({"uses_counted_by": words.UsesCounting.VALIDATION}, "CONTRADICTION"),
    "check_in_interval": ({"require_check_in": True}, "REQUIRED"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
async def test_a_contradiction_is_refused(suite: Suite, world: World, name: str) -> None:
    terms, reason = CONTRADICTIONS[name]
    for kind, base in await bases(world):
        assert await violations(suite, world, request_with(kind, base, **terms)) == [(name, reason)]


@pytest.mark.parametrize("basis", [2, 3, 4])
async def test_a_basis_without_a_duration_is_a_contradiction(suite: Suite, world: World, basis: int) -> None:
    (kind, base), _ = await bases(world)
    expected = [("expiration_basis", "CONTRADICTION")]
    assert await violations(suite, world, request_with(kind, base, expiration_basis=basis)) == expected
    perpetual = request_with(
        kind, base | {"template": pb.PolicyTemplate.saas, "perpetual": True}, expiration_basis=basis
    )
    assert await violations(suite, world, perpetual) == expected
    trial = request_with(kind, base, expiration_basis=basis, is_trial=True, trial_duration=DAY)
    assert (await send(suite, trial, world.test_key)).policy.expiration_basis == basis


async def test_contradictions_are_named_all_at_once(suite: Suite, world: World) -> None:
    everything = {name: value for terms, _ in CONTRADICTIONS.values() for name, value in terms.items()}
    expected = sorted((name, reason) for name, (_, reason) in CONTRADICTIONS.items())
    for kind, base in await bases(world):
        assert sorted(await violations(suite, world, request_with(kind, base, **everything))) == expected


@pytest.mark.parametrize(
    ("terms", "cleared", "expected"),
    [
        ({"is_trial": True, "trial_duration": DAY}, "is_trial", ("trial_duration", "CONTRADICTION")),
        ({"expiration_basis": "FROM_FIRST_USE"}, "duration", ("expiration_basis", "CONTRADICTION")),
        ({"uses_counted_by": "VALIDATION", "max_uses": 1}, "max_uses", ("uses_counted_by", "CONTRADICTION")),
        (
            {"require_check_in": True, "check_in_interval": "DAY"},
            "check_in_interval",
            ("check_in_interval", "REQUIRED"),
        ),
    ],
)
async def test_what_another_term_needs_cannot_be_taken_away(
    suite: Suite, world: World, terms: dict[str, Any], cleared: str, expected: tuple[str, str]
) -> None:
    policy_id = (await open_shop(world.test, **terms)).policy.policy_id
    changes: dict[str, Any] = {cleared: None}
    async with unchanged(suite, world):
        with pytest.raises(InvalidArgument) as caught:
            await world.test.policies.update(policy_id, **changes)
    assert [(found.field, found.reason) for found in caught.value.violations] == [expected]
