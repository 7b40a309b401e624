"""The middleware's order: a call that is wrong in two ways is refused by the layer that comes first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio
from lictor.license.v1.license_service_pb2 import CreateLicenseRequest

from shared.errors import DomainError, Reason
from shared.observe.metrics import Metrics
from shared.rpc.accounts import AccountPlaces
from shared.rpc.admission import AdmissionGate
from shared.rpc.context import CallContext
from shared.rpc.middleware import standard_chain
from shared.rpc.rates import Rates
from shared.rpc.routes import ServiceBinding, build_routes
from shared.tasks import TaskGroupTracker
from tests.helpers.echo import ECHO, SERVICE, Echo, EchoAuthenticator, EchoServicer, NoWire, echo_server

READER = (("authorization", "Bearer reader"),)
NOBODY = (("authorization", "Bearer nobody"),)
TOO_MUCH = tuple((f"x-pad-{number}", "a" * 2000) for number in range(9))
TOO_LARGE = b"\xff" * (1024 * 1024 + 1)
MALFORMED = b"\xff" * 12


@pytest_asyncio.fixture
async def echo() -> AsyncGenerator[Echo]:
    async with echo_server(max_in_flight=1) as running:
        yield running


async def test_draining_before_overload(echo: Echo) -> None:
    echo.gate.enter()
    echo.gate.drain()
    assert (await echo.refused("Read")).reason == "DRAINING"
    echo.gate.leave()


async def test_admission_before_all_that_comes_after(echo: Echo) -> None:
    echo.gate.enter()
    assert (await echo.refused("Write", MALFORMED, metadata=(*NOBODY, *TOO_MUCH))).reason == "OVERLOADED"
    echo.gate.leave()


async def test_admission_before_the_deadline() -> None:
    # Over a socket a call without time left is over before it is answered, so the chain is asked itself.
    gate, metrics, tasks = AdmissionGate(max_in_flight=1), Metrics(), TaskGroupTracker()
    chain = standard_chain(gate, metrics, tasks, EchoAuthenticator(), places=AccountPlaces(512), rates=Rates(lambda: 1))
    route = build_routes([ServiceBinding(ECHO, EchoServicer())], chain)[f"/{SERVICE}/Read"]

    async def reason() -> Reason:
        context = CallContext(method=route.spec.path, service=SERVICE, wire=NoWire(), metadata=(), time_left_s=0.0)
        with pytest.raises(DomainError) as caught:
            await route.call(context, b"")
        return caught.value.reason

    assert await reason() is Reason.DEADLINE_TOO_SHORT, "and before authentication"
    gate.enter()
    assert await reason() is Reason.OVERLOADED


async def test_metadata_size_before_authentication(echo: Echo) -> None:
    assert (await echo.refused("Write", metadata=(*NOBODY, *TOO_MUCH))).violations == [("", "METADATA_TOO_LARGE")]


async def test_authentication_before_authorization_and_parse(echo: Echo) -> None:
    assert (await echo.refused("Write", MALFORMED, metadata=NOBODY)).reason == "CREDENTIALS_INVALID"


async def test_authorization_before_size_and_parse(echo: Echo) -> None:
    assert (await echo.refused("Write", TOO_LARGE, metadata=READER)).reason == "CALLER_NOT_ALLOWED"


async def test_size_before_parse(echo: Echo) -> None:
    assert (await echo.refused("Write", TOO_LARGE)).violations == [("", "MESSAGE_TOO_LARGE")]


async def test_parse_before_the_handler(echo: Echo) -> None:
    called = asyncio.Event()

    async def note(_request: CreateLicenseRequest, _context: CallContext) -> str:
        called.set()
        return ""

    echo.servicer.behaviour = note
    assert (await echo.refused("Write", MALFORMED)).violations == [("", "MESSAGE_MALFORMED")]
    assert not called.is_set()
    await echo.call("Write")
    assert called.is_set()


async def test_every_refusal_is_counted_once(echo: Echo) -> None:
    echo.gate.enter()
    await echo.refused("Read")
    echo.gate.leave()
    await echo.refused("Read", metadata=NOBODY)
    await echo.refused("Read", MALFORMED)
    assert echo.count("Read", "RESOURCE_EXHAUSTED", "OVERLOADED") == 1
    assert echo.count("Read", "UNAUTHENTICATED", "CREDENTIALS_INVALID") == 1
    assert echo.count("Read", "INVALID_ARGUMENT", "FIELD_INVALID") == 1
    assert echo.gate.in_flight == 0
