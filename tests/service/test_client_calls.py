"""What the client promises about a call: retries with one request_id, deadlines, errors, credentials."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from lictor import AsyncLictor, DeadlineExceeded, InvalidArgument, Lictor, LictorError, ResourceExhausted, Unavailable
from lictor.common.v1.common_pb2 import Decision
from lictor.license.v1.license_service_pb2 import (
    CreateLicenseRequest,
    CreateLicenseResponse,
    GetLicenseResponse,
    License,
    SuspendLicenseRequest,
)
from lictor.license.v1.validation_service_pb2 import ValidateLicenseRequest, ValidateLicenseResponse, ValidationCode

from tests.service.test_client_outside import Outside, Refusal, running_outside

DOWN = Refusal(grpc.StatusCode.UNAVAILABLE, "RECORD_UNREACHABLE")
MADE = CreateLicenseResponse(license=License(license_id="lic_1"), key="DEMO-K")


@pytest.fixture(name="outside")
async def _outside() -> AsyncIterator[Outside]:
    async with running_outside() as outside:
        yield outside


@pytest.fixture(name="client")
async def _client(outside: Outside) -> AsyncIterator[AsyncLictor]:
    async with AsyncLictor(api_key="sk_test_secret", endpoint=outside.endpoint) as client:
        yield client


def _request_ids(outside: Outside) -> list[str]:
    return [request.request_id for request in outside.requests(CreateLicenseRequest)]


async def test_a_write_is_retried_with_the_same_request_id(outside: Outside, client: AsyncLictor) -> None:
    outside.script("CreateLicense", DOWN, DOWN, MADE)
    made = await client.licenses.create(policy_id="pol_1")
    assert made.key == "DEMO-K"
    ids = _request_ids(outside)
    assert len(ids) == 3
    assert len(set(ids)) == 1
    await client.licenses.create(policy_id="pol_1")
    assert _request_ids(outside)[3] != ids[0]


async def test_the_blocking_client_retries_alike(outside: Outside) -> None:
    outside.script("CreateLicense", DOWN, DOWN, MADE)
    with Lictor(api_key="sk_test_secret", endpoint=outside.endpoint) as client:
        made = await asyncio.to_thread(client.licenses.create, policy_id="pol_1", request_id="mine")
    assert made.license.license_id == "lic_1"
    assert _request_ids(outside) == ["mine"] * 3


async def test_three_tries_are_all(outside: Outside, client: AsyncLictor) -> None:
    outside.script("GetLicense", DOWN, DOWN, DOWN, GetLicenseResponse())
    with pytest.raises(Unavailable) as caught:
        await client.licenses.get("lic_1")
    assert caught.value.reason == "RECORD_UNREACHABLE"
    assert len(outside.seen) == 3


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.ABORTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED]
)
async def test_nothing_else_is_retried(outside: Outside, client: AsyncLictor, code: grpc.StatusCode) -> None:
    outside.script("GetLicense", Refusal(code, "SOMETHING"), GetLicenseResponse())
    with pytest.raises(LictorError):
        await client.licenses.get("lic_1")
    assert len(outside.seen) == 1


async def test_an_overloaded_server_says_when_to_come_back(outside: Outside, client: AsyncLictor) -> None:
    busy = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after_ms=150)
    outside.script("GetLicense", busy, GetLicenseResponse(license=License(license_id="lic_1")))
    start = time.monotonic()
    assert (await client.licenses.get("lic_1")).license_id == "lic_1"
    assert time.monotonic() - start >= 0.15


async def test_a_wait_past_the_deadline_is_not_begun(outside: Outside, client: AsyncLictor) -> None:
    outside.script("ValidateLicense", Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after_ms=5_000))
    start = time.monotonic()
    with pytest.raises(ResourceExhausted) as caught:
        await client.validate(key="DEMO-K")
    assert caught.value.retry_after_s == 5.0
    assert time.monotonic() - start < 1.0


async def test_deadlines_by_default_by_client_and_by_call(outside: Outside, client: AsyncLictor) -> None:
    await client.licenses.get("lic_1")
    await client.validate(key="DEMO-K")
    await client.validate(key="DEMO-K", timeout_s=0.4)
    async with AsyncLictor(api_key="sk_test_secret", endpoint=outside.endpoint, timeout_s=3) as patient:
        await patient.validate(key="DEMO-K")
    left = [seen.time_left_s for seen in outside.seen]
    # gRPC rounds a timeout up on the wire.
    assert 8 < left[0] < 10.1
    assert 0.5 < left[1] < 1.1
    assert left[2] < 0.45
    assert 2 < left[3] < 3.1


@pytest.mark.parametrize("flavour", ["sync", "async"])
async def test_a_silent_server_costs_the_deadline_and_no_more(flavour: str) -> None:
    held: list[asyncio.StreamWriter] = []

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as silent:
        endpoint = f"127.0.0.1:{silent.sockets[0].getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises((DeadlineExceeded, Unavailable)):
            if flavour == "sync":
                with Lictor(api_key="sk_test_secret", endpoint=endpoint, timeout_s=0.2) as blocking:
                    await asyncio.to_thread(blocking.whoami)
            else:
                async with AsyncLictor(api_key="sk_test_secret", endpoint=endpoint, timeout_s=0.2) as client:
                    await client.whoami()
        assert time.monotonic() - start < 1.5
        for writer in held:
            writer.close()


async def test_an_error_carries_what_the_server_said(outside: Outside, client: AsyncLictor) -> None:
    outside.script(
        "CreateProduct",
        Refusal(
            grpc.StatusCode.INVALID_ARGUMENT,
            "FIELD_INVALID",
            "two fields are wrong",
            {"violations": "2"},
            (("code", "CODE_INVALID", "must be upper case"), ("display_name", "REQUIRED", "must be given")),
        ),
    )
    with pytest.raises(InvalidArgument) as caught:
        await client.products.create(code="x", display_name="")
    error = caught.value
    assert (error.code, error.reason, error.message) == ("INVALID_ARGUMENT", "FIELD_INVALID", "two fields are wrong")
    assert error.metadata == {"violations": "2"}
    assert [bad.field for bad in error.violations] == ["code", "display_name"]
    assert error.violations[0].reason == "CODE_INVALID"
    assert error.request_id == "call_1"
    assert str(error) == "FIELD_INVALID: two fields are wrong (call call_1)"


async def test_the_blocking_client_reads_errors_alike(outside: Outside) -> None:
    outside.script("GetLicense", Refusal(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID", "no such key"))
    with Lictor(api_key="sk_test_secret", endpoint=outside.endpoint) as client, pytest.raises(LictorError) as caught:
        await asyncio.to_thread(client.licenses.get, "lic_1")
    assert type(caught.value).__name__ == "Unauthenticated"
    assert (caught.value.reason, caught.value.request_id) == ("CREDENTIALS_INVALID", "call_1")
    assert "sk_test_secret" not in repr(caught.value) + str(caught.value)


async def test_an_error_of_somebody_else_has_a_code_and_no_reason(outside: Outside, client: AsyncLictor) -> None:
    outside.script("GetLicense", Refusal(grpc.StatusCode.DATA_LOSS, message="a proxy's words"))
    with pytest.raises(LictorError) as caught:
        await client.licenses.get("lic_1")
    assert (caught.value.code, caught.value.reason) == ("DATA_LOSS", "")
    assert caught.value.message == "a proxy's words"


async def test_nothing_listening_is_unavailable() -> None:
    async with AsyncLictor(api_key="sk_test_secret", endpoint="127.0.0.1:1") as client:
        with pytest.raises(Unavailable) as caught:
            await client.whoami()
    assert caught.value.reason == ""


async def test_a_verdict_is_a_result(outside: Outside, client: AsyncLictor) -> None:
    now = datetime(2026, 5, 1, 12, tzinfo=UTC)
    verdict = ValidateLicenseResponse(
        code=ValidationCode.SUSPENDED,
        all_codes=[ValidationCode.SUSPENDED, ValidationCode.EXPIRED],
        license_id="lic_1",
        decision=Decision(decision_id="dec_1"),
    )
    verdict.decision.evaluated_at.FromDatetime(now)
    verdict.expire_time.FromDatetime(now - timedelta(days=1))
    outside.script("ValidateLicense", verdict)
    result = await client.validate(license_id="lic_1")
    assert not result
    assert not result.valid
    assert (result.code, result.all_codes) == ("SUSPENDED", ("SUSPENDED", "EXPIRED"))
    assert (result.evaluated_at, result.expire_time) == (now, now - timedelta(days=1))
    assert result.decision.decision_id == "dec_1"
    assert result.license is None
    sent = outside.requests(ValidateLicenseRequest)[0]
    assert sent.license.license_id == "lic_1"


async def test_a_verdict_newer_than_the_client_is_not_valid(outside: Outside, client: AsyncLictor) -> None:
    newer = ValidateLicenseResponse.FromString(b"\x18\xbc\x05")  # code 700
    outside.script("ValidateLicense", newer)
    result = await client.validate(key="DEMO-K")
    assert result.code == "UNKNOWN_700"
    assert not result


async def test_a_closed_client_says_so(outside: Outside) -> None:
    blocking = Lictor(api_key="sk_test_secret", endpoint=outside.endpoint)
    blocking.close()
    with pytest.raises(RuntimeError, match="closed"):
        blocking.whoami()
    client = AsyncLictor(api_key="sk_test_secret", endpoint=outside.endpoint)
    await client.close()
    with pytest.raises(RuntimeError, match="closed"):
        await client.whoami()


async def test_a_state_change_carries_its_reason_and_etag(outside: Outside, client: AsyncLictor) -> None:
    await client.licenses.suspend("lic_1", reason="chargeback", etag="e1")
    sent = outside.requests(SuspendLicenseRequest)[0]
    assert (sent.license_id, sent.reason, sent.etag) == ("lic_1", "chargeback", "e1")
