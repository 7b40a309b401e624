"""Per-account admission, as the chain does it: before authorization and the handler, and for as long as a write runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import grpc
import pytest_asyncio
from lictor.license.v1.license_service_pb2 import CreateLicenseRequest

from tests.helpers.echo import Echo, answer_name, echo_server
from tests.service.test_rpc_admission import Held

NO_SCOPES = (("authorization", "Bearer reader"),)


@pytest_asyncio.fixture
async def echo() -> AsyncGenerator[Echo]:
    async with echo_server(max_in_flight=8, account_share_percent=25) as running:
        yield running


async def fill(echo: Echo, method: str = "Read", timeout_s: float = 10.0) -> tuple[Held, list[asyncio.Task[object]]]:
    """Takes the account's two places."""
    held = Held()
    echo.servicer.behaviour = held
    calls = [asyncio.ensure_future(wait(echo, method, name, timeout_s)) for name in "ab"]
    for _ in calls:
        await held.inside.acquire()
    return held, calls


async def wait(echo: Echo, method: str, name: str, timeout_s: float) -> object:
    return await echo.start(method, CreateLicenseRequest(display_name=name), timeout_s=timeout_s)


async def test_an_account_takes_a_quarter_of_the_places(echo: Echo) -> None:
    held, calls = await fill(echo)
    seen = await echo.refused("Read")
    assert (seen.code, seen.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert seen.retry_ms == 100
    assert seen.message == "2 calls of this account are in flight already"
    assert echo.count("Read", "RESOURCE_EXHAUSTED", "OVERLOADED") == 1
    assert echo.gate.in_flight == 2, "the process has places left"
    held.go.set()
    await asyncio.gather(*calls)
    assert await echo.call("Read", CreateLicenseRequest(display_name="c")) == "c"


async def test_it_is_asked_before_the_scope_and_after_the_credential(echo: Echo) -> None:
    held, calls = await fill(echo)
    assert (await echo.refused("Write", metadata=NO_SCOPES)).reason == "OVERLOADED"
    assert (await echo.refused("Read", metadata=(("authorization", "Bearer nobody"),))).reason == "CREDENTIALS_INVALID"
    held.go.set()
    await asyncio.gather(*calls)
    assert (await echo.refused("Write", metadata=NO_SCOPES)).reason == "CALLER_NOT_ALLOWED"


async def test_a_write_that_outlives_its_caller_keeps_its_place(echo: Echo) -> None:
    held, calls = await fill(echo, "Write", timeout_s=0.3)
    await asyncio.gather(*calls, return_exceptions=True)
    assert (await echo.refused("Read")).reason == "OVERLOADED"
    held.go.set()
    await echo.tasks.drain(5)
    echo.servicer.behaviour = answer_name
    await echo.call("Read")
