"""Every kind of caller at every method: it is reached, or refused with CALLER_NOT_ALLOWED. Nothing is in between."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest
from google.protobuf.descriptor import MethodDescriptor
from lictor.account.v1.account_service_pb2 import PrincipalKind as PrincipalKindPb
from lictor.account.v1.account_service_pb2 import WhoAmIRequest
from lictor.common.v1.common_pb2 import LicenseSelector
from lictor.license.v1.license_service_pb2 import ListLicensesRequest
from lictor.license.v1.validation_service_pb2 import ValidateLicenseRequest

from services import suite as services_suite
from shared.clock import SystemClock
from shared.errors import DomainError
from shared.observe.metrics import Metrics
from shared.rpc.accounts import AccountPlaces
from shared.rpc.admission import AdmissionGate
from shared.rpc.context import CallContext
from shared.rpc.middleware import standard_chain
from shared.rpc.rates import Rates
from shared.rpc.routes import build_routes
from shared.rules.limits import LimitKind
from shared.tasks import TaskGroupTracker
from shared.tenancy import ACCOUNT_SCOPES, OPERATOR_SCOPES, PrincipalKind
from tests.helpers.builders import METHODS, open_shop, path_of, probe, rules_of, unchanged, uuid
from tests.helpers.credentials import (
    bearer_of,
    let_in,
    license_of,
    open_portal,
    outcome_as,
    publishable,
    send_as,
)
from tests.helpers.echo import NoWire
from tests.helpers.lease import lease_passes
from tests.helpers.suite import Suite, World

BY_NAME: Final = {method.name: method for method in METHODS.values()}
ON_A_MACHINE: Final = frozenset(
    {
        "ActivateMachine",
        "DeactivateSelf",
        "HeartbeatMachine",
        "HeartbeatProcess",
        "AcquireSeat",
        "RenewSeat",
        "ReleaseSeat",
        "HoldSeat",
        "IssueMachineFile",
        "ReturnMachineFile",
    }
)
ANONYMOUS: Final = {name for name, method in BY_NAME.items() if rules_of(method).anonymous}
"""What anybody reaches, and so everybody."""
REACHED: Final = {
    PrincipalKind.PUBLISHABLE_KEY: ANONYMOUS | {"WhoAmI", "ValidateLicense", "BatchValidateLicenses", *ON_A_MACHINE},
    PrincipalKind.LICENSE_KEY: ANONYMOUS | {
        "WhoAmI", "ValidateLicense", "CheckInLicense", "IssueLicenseFile", "TransferMachine", *ON_A_MACHINE,
    },
    PrincipalKind.CUSTOMER_SESSION: ANONYMOUS | {
        "WhoAmI", "GetCustomer", "ListLicenses", "GetLicense", "RevealLicenseKey", "RotateLicenseKey",
        "GetMachine", "ListMachines", "ListProcesses", "DeactivateMachine", "IssueLicenseFile",
    },
    PrincipalKind.OPERATOR: {
        name for name, method in BY_NAME.items() if rules_of(method).scope in OPERATOR_SCOPES | {""}
    },
    PrincipalKind.SECRET_KEY: {
        name for name, method in BY_NAME.items() if rules_of(method).scope in ACCOUNT_SCOPES | {""}
    },
    PrincipalKind.WORKLOAD: {
        name for name, method in BY_NAME.items() if rules_of(method).scope in ACCOUNT_SCOPES | {""}
    },
}  # fmt: skip
"""The methods that a kind of caller reaches with all the scopes that it can have."""


def test_every_kind_of_caller_is_crossed_with_every_method() -> None:
    assert set(REACHED) == set(PrincipalKind) - {PrincipalKind.SERVICE}
    assert len(BY_NAME) == len(METHODS) > 40
    assert set().union(*REACHED.values()) == set(BY_NAME)


async def lift_limits(suite: Suite, world: World) -> None:
    async with suite.client(suite.operator_key) as operator:
        no_limits = {kind.value: 0 for kind in LimitKind}
        await operator.accounts.update(world.account_id, limits=no_limits)


async def authorization_of(suite: Suite, world: World, kind: PrincipalKind) -> str:
    match kind:
        case PrincipalKind.OPERATOR:
            return bearer_of(suite.operator_key)
        case PrincipalKind.SECRET_KEY:
            return bearer_of(world.test_key)
        case PrincipalKind.PUBLISHABLE_KEY:
            return bearer_of((await publishable(world.test)).secret)
        case PrincipalKind.LICENSE_KEY:
            issued = await (await open_shop(world.test)).issue()
            return license_of((await publishable(world.test)).secret, issued.key)
        case PrincipalKind.CUSTOMER_SESSION:
            return bearer_of((await open_portal(suite, world)).token)
        case PrincipalKind.WORKLOAD | PrincipalKind.SERVICE:
            raise AssertionError("a workload sends no authorization, and a service is no caller of these methods")


@pytest.mark.parametrize("kind", [kind for kind in REACHED if kind is not PrincipalKind.WORKLOAD])
async def test_a_caller_reaches_what_is_for_its_kind_and_nothing_else(
    suite: Suite, world: World, kind: PrincipalKind
) -> None:
    await lift_limits(suite, world)
    authorization = await authorization_of(suite, world, kind)
    who = await send_as(suite, WhoAmIRequest(), authorization)
    assert PrincipalKindPb.Kind.Name(who.kind) == kind.value
    async with unchanged(suite, world):
        for name, method in BY_NAME.items():
            found = await outcome_as(suite, probe(method), authorization)
            expected = {"OK", "FIELD_INVALID"} if name in REACHED[kind] else {"CALLER_NOT_ALLOWED"}
            assert found in expected, (kind, name, found)


async def test_a_workload_reaches_what_a_secret_key_reaches(suite: Suite, world: World) -> None:
    """In front of no transport: what a certificate says is the transport's business."""
    domain = f"{uuid()}.test"

    class Certified(NoWire):
        def peer_identity(self) -> str:
            return f"spiffe://{domain}/a"

    async with suite.client(suite.operator_key) as operator:
        await operator.workload_bindings.create(
            spiffe_id_pattern=f"spiffe://{domain}/*", account_id=world.account_id, mode="TEST", scopes=ACCOUNT_SCOPES
        )
    async with services_suite.build(suite.settings, SystemClock()) as app:
        chain = standard_chain(
            AdmissionGate(8),
            Metrics(),
            TaskGroupTracker(),
            app.authenticator,
            places=AccountPlaces(8, 100),
            rates=Rates(lambda: 1),
        )
        routes = build_routes(app.bindings, chain)

        async def outcome(method: MethodDescriptor) -> str:
            path = path_of(method)
            context = CallContext(method=path, service="", wire=Certified(), metadata=(), time_left_s=10.0)
            try:
                await routes[path].call(context, probe(method).SerializeToString())
            except DomainError as error:
                return error.reason.value
            return "OK"

        for name, method in BY_NAME.items():
            expected = {"OK", "FIELD_INVALID"} if name in REACHED[PrincipalKind.WORKLOAD] else {"CALLER_NOT_ALLOWED"}
            assert await outcome(method) in expected, name


@pytest.mark.parametrize(
    "kind", [PrincipalKind.PUBLISHABLE_KEY, PrincipalKind.LICENSE_KEY, PrincipalKind.CUSTOMER_SESSION]
)
async def test_a_suspended_account_is_closed_to_every_credential_of_it(
    suite: Suite, world: World, kind: PrincipalKind
) -> None:
    authorization = await authorization_of(suite, world, kind)
    async with suite.client(suite.operator_key) as operator:
        for _ in range(2):
            assert await let_in(suite, authorization)
            await operator.accounts.suspend(world.account_id)
            assert not await let_in(suite, authorization)
            await operator.accounts.reinstate(world.account_id)
            await lease_passes()


@pytest.mark.parametrize("kind", ["publishable", "license", "session"])
async def test_no_call_that_begins_after_the_end_of_a_credential_is_let_in(
    suite: Suite, world: World, kind: str
) -> None:
    """Raced: calls go on all the time; whichever begins after the revocation has returned is refused."""
    await lift_limits(suite, world)
    portal = await open_portal(suite, world)
    ended = asyncio.Event()
    late: list[str] = []

    async def call_on_and_on(authorization: str) -> int:
        before = 0
        while True:
            begun_late = ended.is_set()
            found = await outcome_as(suite, ValidateLicenseRequest() if kind == "license" else request, authorization)
            if begun_late:
                late.append(found)
                return before
            before += found == "OK"

    for _ in range(4):
        key = await publishable(world.test)
        session = await world.test.customers.create_session(portal.customer_id)
        request = ValidateLicenseRequest(license=LicenseSelector(license_key=portal.issued.key))
        authorization = bearer_of(key.secret)
        if kind == "license":
            authorization = license_of(key.secret, portal.issued.key)
        if kind == "session":
            authorization, request = bearer_of(session.token), ListLicensesRequest()
        ended.clear()
        late.clear()
        callers = [asyncio.create_task(call_on_and_on(authorization)) for _ in range(6)]
        await asyncio.sleep(0.05)
        if kind == "session":
            await world.test.customers.revoke_sessions(portal.customer_id)
        else:
            await world.test.api_keys.revoke(key.api_key.api_key_id)
        ended.set()
        assert sum(await asyncio.gather(*callers)) > 0, "nothing was let in before"
        assert late == ["CREDENTIALS_INVALID"] * 6
