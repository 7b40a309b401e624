"""The terms of machines, and the limits that a license has for itself."""

from __future__ import annotations

from typing import Any

import pytest
from lictor import InvalidArgument
from lictor.license.v1 import license_service_pb2 as pb
from lictor.license.v1 import policy_terms_pb2 as words

from tests.helpers.builders import events, open_shop, refused, send, unchanged, uuid
from tests.helpers.suite import Suite, World

LIMITS: dict[str, int] = {
    # The greatest that each can be.
    "max_machines": 2**31 - 1, "max_users": 2**31 - 1, "max_cores": 2**31 - 1, "max_memory_bytes": 2**63 - 1,
    "max_disk_bytes": 2**63 - 1, "max_processes": 2**31 - 1,
}  # fmt: skip


def own_limits(**limits: Any) -> pb.LicenseOverrides:
    return pb.LicenseOverrides(**limits)


def test_every_limit_on_machines_is_one_that_licenses_can_have() -> None:
    of_licenses = {*LIMITS, "max_uses", "offline_max_ttl"}
    assert set(pb.LicenseOverrides.DESCRIPTOR.fields_by_name) == of_licenses
    assert {name.lower() for name, _ in words.PolicyLimit.Kind.items()} == of_licenses | {"kind_unspecified"}


@pytest.mark.parametrize("name", LIMITS)
async def test_a_license_has_a_limit_of_its_own(suite: Suite, world: World, name: str) -> None:
    shop = await open_shop(world.test, overridable=[name.upper()])
    licenses, own = world.test.licenses, own_limits(**{name: 1})
    made = (await shop.issue(overrides=own)).license
    assert made.overrides == own
    assert await licenses.get(made.license_id) == made
    most = own_limits(**{name: LIMITS[name]})
    assert (await licenses.update(made.license_id, overrides=most)).license.overrides == most
    (*_, told) = await events(suite, made.license_id)
    none = dict.fromkeys((*LIMITS, "max_uses", "offline_max_ttl"))
    assert told["data"]["overrides"] == none | {name: LIMITS[name]}
    assert not (await licenses.update(made.license_id, overrides=None)).license.HasField("overrides")


@pytest.mark.parametrize("name", LIMITS)
async def test_a_limit_of_its_own_is_at_least_one_and_let_by_the_policy(suite: Suite, world: World, name: str) -> None:
    others = [other.upper() for other in LIMITS if other != name]
    shop = await open_shop(world.test, overridable=others)
    license_id = (await shop.issue()).license.license_id
    bad = [(f"overrides.{name}", "OUT_OF_RANGE")]
    async with unchanged(suite, world):
        for value in (0, -1):
            own = own_limits(**{name: value})
            for request in (
                pb.CreateLicenseRequest(policy_id=shop.policy.policy_id, overrides=own),
                pb.UpdateLicenseRequest(license_id=license_id, overrides=own),
            ):
                error = await refused(suite, request, world.test_key)
                assert (error.reason, error.violations) == ("FIELD_INVALID", bad)
        own = own_limits(**{name: 1})
        request = pb.UpdateLicenseRequest(license_id=license_id, overrides=own)
        error = await refused(suite, request, world.test_key)
        assert (error.reason, dict(error.info.metadata)) == ("POLICY_INCOMPATIBLE", {"policyId": shop.policy.policy_id})


async def test_limits_of_licenses_from_elsewhere(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test, overridable=[name.upper() for name in LIMITS])
    own = own_limits(**{name: n for n, name in enumerate(LIMITS, start=2)})
    item = pb.LicenseImport(policy_id=shop.policy.policy_id, external_id="x", overrides=own)
    request = pb.ImportLicensesRequest(request_id=uuid(), items=[item])
    [made] = (await send(suite, request, world.test_key)).licenses
    assert (await world.test.licenses.get(made.license_id)).overrides == own
    request.request_id = uuid()
    assert [one.already_there for one in (await send(suite, request, world.test_key)).licenses] == [True]
    request.items[0].overrides.max_cores = 1
    request.request_id = uuid()
    error = await refused(suite, request, world.test_key)
    assert error.violations == [("items[0].external_id", "EXTERNAL_ID_TAKEN")]


@pytest.mark.parametrize(
    ("terms", "cleared", "field"),
    [
        ({"machine_leasing": "PER_USER", "max_machines": 1}, "max_machines", "machine_leasing"),
        ({"process_leasing": "PER_USER", "overridable": ["MAX_PROCESSES"]}, "overridable", "process_leasing"),
        ({"seat_acquire": "EVICT_OLDEST", "floating": True}, "floating", "seat_acquire"),
        (
            {"heartbeat_resurrection": "ALWAYS_REVIVE", "heartbeat_cull": "KEEP_DEAD"},
            "heartbeat_cull",
            "heartbeat_resurrection",
        ),
        (
            {"max_transfers": 3, "floating": True, "allow_machine_transfer": True},
            "allow_machine_transfer",
            "max_transfers",
        ),
    ],
)
async def test_what_another_term_needs_is_given_with_it_and_not_taken_away(
    suite: Suite, world: World, terms: dict[str, Any], cleared: str, field: str
) -> None:
    shop = await open_shop(world.test, template="custom", max_machines=terms.get("max_machines", 3))
    policies, product_id = world.test.policies, shop.product.product_id
    base: dict[str, Any] = {"product_id": product_id, "display_name": "x", "max_machines": 3}
    policy = (await policies.create(**base | terms)).policy
    changes: dict[str, Any] = {cleared: None, "allow_unlimited": cleared == "max_machines"}
    lacking = {name: value for name, value in terms.items() if name != cleared}
    if cleared == "max_machines":
        base = {"product_id": product_id, "display_name": "x", "allow_unlimited": True}
    async with unchanged(suite, world):
        for call in (policies.create(**base | lacking), policies.update(policy.policy_id, **changes)):
            with pytest.raises(InvalidArgument) as caught:
                await call
            assert [(found.field, found.reason) for found in caught.value.violations] == [(field, "CONTRADICTION")]
