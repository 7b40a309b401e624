"""An id of another account or mode is as unknown as one that never was."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import grpc
import pytest
import pytest_asyncio
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from lictor.common.v1.common_pb2 import LicenseSelector
from lictor.license.v1 import license_service_pb2 as pb
from lictor.license.v1.validation_service_pb2 import ValidateLicenseRequest
from lictor.machine.v1.activation_service_pb2 import ReleaseSeatRequest, RenewSeatRequest
from lictor.machine.v1.machine_service_pb2 import TransferMachineRequest

from shared.tenancy import OPERATOR_SCOPES
from tests.helpers.builders import (
    METHODS,
    Shop,
    open_shop,
    refused,
    refused_unchanged,
    request_class,
    rules_of,
    send,
    unchanged,
)
from tests.helpers.suite import Suite, World

RESOURCES = {
    "license_id": "LICENSE_NOT_FOUND", "policy_id": "POLICY_NOT_FOUND", "product_id": "PRODUCT_NOT_FOUND",
    "tier_id": "TIER_NOT_FOUND", "customer_id": "CUSTOMER_NOT_FOUND", "api_key_id": "API_KEY_NOT_FOUND",
    "machine_id": "MACHINE_NOT_FOUND",
    "signing_key_id": "SIGNING_KEY_NOT_FOUND",
}  # fmt: skip
FILTERS = {
    "ListLicenses",
    "ListPolicies",
    "ListTiers",
    "ListCustomers",
    "ListMachines",
    "ValidateLicense",
    "WatchLicenses",
}


def naming_methods() -> list[Any]:
    """(method, id field) for each method inside an account whose request has an id in it; some only filter by ids."""
    return [
        pytest.param(method, field.name, id=f"{method.name}-{field.name}")
        for method in METHODS.values()
        if method.name not in FILTERS
        for field in method.input_type.fields
        if field.name in RESOURCES
    ]


async def stock(shop: Shop) -> dict[str, str]:
    """One resource of each kind."""
    made = await shop.issue(customer_email="ada@example.com")
    tier = await shop.client.tiers.create(product_id=shop.product.product_id, slug="pro", display_name="Pro")
    signing_key = (await shop.client.signing_keys.rotate(shop.product.product_id)).signing_key
    key = await shop.client.api_keys.create(scopes=["keys:read"])
    machine = await shop.client.activate(license_id=made.license.license_id, fingerprint="fingerprint")
    return {
        "license_id": made.license.license_id,
        "policy_id": shop.policy.policy_id,
        "product_id": shop.product.product_id,
        "tier_id": tier.tier.tier_id,
        "customer_id": made.license.customer_id,
        "api_key_id": key.api_key.api_key_id,
        "machine_id": machine.machine.machine_id,
        "signing_key_id": signing_key.signing_key_id,
    }


VALUES = {
    "display_name": "x",
    "slug": "x",
    "max_machines": 1,
    "fingerprint": "fingerprint",
    "name": "x",
    "request_id": str(UUID(int=1)),
}


def naming(method: MethodDescriptor, field: str, resource_id: str, own: dict[str, str]) -> Message:
    """A request that is good but for the one id."""
    request = request_class(method)()
    for known in method.input_type.fields:
        if known.name == field:
            setattr(request, field, resource_id)
        elif known.name in own and known.name in RESOURCES:
            setattr(request, known.name, own[known.name])
        elif known.name in VALUES and not method.name.startswith(("Suspend", "Get")):
            setattr(request, known.name, VALUES[known.name])
    if isinstance(request, RenewSeatRequest | ReleaseSeatRequest):
        request.epoch = 1
    if isinstance(request, TransferMachineRequest):
        request.identity.fingerprint = "another-fingerprint"
    return request


@dataclass(frozen=True)
class Owners:
    """Two accounts, and ids of a resource of each kind: of the one in either mode, and of the other."""

    world: World
    other: World
    own: dict[str, str]
    live: dict[str, str]
    foreign: dict[str, str]


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="owners")
async def _owners(suite: Suite) -> AsyncGenerator[Owners]:
    """For all tests that change nothing, which they look after themselves."""
    async with suite.world() as world, suite.world() as other:
        own, live, foreign = [await stock(await open_shop(client)) for client in (world.test, world.live, other.test)]
        yield Owners(world, other, own, live, foreign)


@pytest.mark.parametrize(("method", "field"), naming_methods())
async def test_an_id_of_another_account_or_mode_is_as_unknown_as_one_that_never_was(
    suite: Suite, owners: Owners, method: MethodDescriptor, field: str
) -> None:
    world, told = owners.world, set[str]()
    async with unchanged(suite, world, owners.other):
        for resource_id in ("nope", owners.foreign[field], owners.live[field]):
            error = await refused(suite, naming(method, field, resource_id, owners.own), world.test_key)
            assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, RESOURCES[field])
            assert dict(error.info.metadata) == {"id": resource_id}
            told.add(error.message.replace(resource_id, "<id>"))
    assert len(told) == 1, "the words are the same for each"


async def test_a_customer_of_another_account_or_mode(suite: Suite, world: World) -> None:
    shop, live = await open_shop(world.test), await stock(await open_shop(world.live))
    async with suite.world() as other:
        foreign = await stock(await open_shop(other.test))
        for customer_id in ("nope", foreign["customer_id"], live["customer_id"]):
            request = pb.CreateLicenseRequest(policy_id=shop.policy.policy_id)
            request.customer.customer_id = customer_id
            error = await refused_unchanged(suite, world, request)
            assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "CUSTOMER_NOT_FOUND")


def test_no_method_with_an_id_was_left_out() -> None:
    covered = {param.values[0].name for param in naming_methods()} | FILTERS
    others = {
        method.name
        for method in METHODS.values()
        if method.name not in covered and rules_of(method).scope not in OPERATOR_SCOPES
    }
    assert others == {
        "CreateProduct", "ListProducts", "CreateApiKey", "ListApiKeys", "WhoAmI", "BatchValidateLicenses",
        "ImportLicenses", "ActivateMachine", "AcquireSeat", "HoldSeat", "GetJsonWebKeySet",
        "ExplainValidation",
    }  # fmt: skip


async def test_a_test_key_on_live_data(suite: Suite, world: World) -> None:
    made = await (await open_shop(world.live)).issue()
    found = await send(suite, ValidateLicenseRequest(license=LicenseSelector(license_key=made.key)), world.test_key)
    assert not found.valid
    error = await refused_unchanged(suite, world, pb.SuspendLicenseRequest(license_id=made.license.license_id))
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "LICENSE_NOT_FOUND")
    assert (
        await send(suite, ValidateLicenseRequest(license=LicenseSelector(license_key=made.key)), world.live_key)
    ).valid
