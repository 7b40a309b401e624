"""Each refusal as a grpcio client sees it: code, reason and details."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncGenerator
from typing import NoReturn

import grpc
import pytest
import pytest_asyncio
import structlog
from lictor.license.v1.license_service_pb2 import CreateLicenseRequest, CustomerRef

from shared.errors import CODES, DomainError, Reason
from shared.observe import logging as lictor_logging
from shared.rpc.context import CallContext
from tests.helpers.echo import SERVICE, Echo, echo_server

READER = (("authorization", "Bearer reader"),)
MARK = "@@@@"
NOT_UTF8 = b"\xff\xfe\xfd\xfc"


@pytest_asyncio.fixture
async def echo() -> AsyncGenerator[Echo]:
    async with echo_server() as running:
        yield running


def spoiled(request: CreateLicenseRequest) -> bytes:
    """The request's bytes with every `@@@@` replaced by four bytes that are not UTF-8."""
    return request.SerializeToString().replace(MARK.encode(), NOT_UTF8)


async def test_answers(echo: Echo) -> None:
    assert await echo.call("Read", CreateLicenseRequest(display_name="Ada")) == "Ada"
    assert echo.count("Read", "OK") == 1


@pytest.mark.parametrize("reason", list(Reason))
async def test_every_reason_arrives_with_its_code(echo: Echo, reason: Reason) -> None:
    async def refuse(_request: CreateLicenseRequest, _context: CallContext) -> NoReturn:
        raise DomainError(reason, "a sentence", metadata={"id": "lic_1"}, retry_after_ms=250)

    echo.servicer.behaviour = refuse
    seen = await echo.refused("Read")
    assert seen.code.value[0] == CODES[reason]
    assert (seen.reason, seen.info.domain, seen.message) == (reason.value, "lictor.dev", "a sentence")
    assert dict(seen.info.metadata) == {"id": "lic_1"}
    assert seen.retry_ms == 250
    assert seen.request_id.startswith("call_")
    expected = (reason.value, "lic_1") if seen.code is grpc.StatusCode.FAILED_PRECONDITION else None
    assert seen.precondition == expected
    assert echo.count("Read", seen.code.name, reason.value) == 1


async def test_precondition_without_an_id_names_the_method(echo: Echo) -> None:
    async def refuse(_request: CreateLicenseRequest, _context: CallContext) -> NoReturn:
        raise DomainError(Reason.UNLIMITED_NOT_CONFIRMED, "a sentence")

    echo.servicer.behaviour = refuse
    assert (await echo.refused("Read")).precondition == ("UNLIMITED_NOT_CONFIRMED", f"/{SERVICE}/Read")


async def test_no_credential(echo: Echo) -> None:
    seen = await echo.refused("Open", metadata=())
    assert (seen.code, seen.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID")


async def test_two_credentials(echo: Echo) -> None:
    both = (("authorization", "Bearer all"), ("authorization", "Bearer reader"))
    assert (await echo.refused("Open", metadata=both)).reason == "CREDENTIALS_INVALID"


async def test_scope_missing(echo: Echo) -> None:
    seen = await echo.refused("Write", metadata=READER)
    assert (seen.code, seen.reason) == (grpc.StatusCode.PERMISSION_DENIED, "CALLER_NOT_ALLOWED")
    assert dict(seen.info.metadata) == {"scope": "echo:write"}


async def test_an_empty_scope_lets_any_principal_in(echo: Echo) -> None:
    assert await echo.call("Open", CreateLicenseRequest(display_name="Ada"), metadata=READER) == "Ada"


async def test_the_handler_sees_the_principal_and_no_credential(echo: Echo) -> None:
    seen: dict[str, str | bytes] = {}

    async def look(_request: CreateLicenseRequest, context: CallContext) -> str:
        seen.update(context.invocation_metadata())
        assert context.take_authorization() == []
        return f"{context.principal.account_id} {context.trace_id} {context.peer().partition(':')[0]}"

    echo.servicer.behaviour = look
    trace = "0af7651916cd43dd8448eb211c80319c"
    forged = (("lictor-account", "acc_2"), ("x-envoy-peer", "a"), ("x-forwarded-client-cert", "b"), ("x-mine", "c"))
    sent = (("authorization", "Bearer all"), ("traceparent", f"00-{trace}-b7ad6b7169203331-01"), *forged)
    assert await echo.call("Read", metadata=sent) == f"acc_1 {trace} ipv4"
    assert seen["x-mine"] == "c"
    assert not {key for key in seen if key.startswith(("lictor-", "x-envoy-", "x-forwarded-", "authorization"))}


async def test_two_mebibytes(echo: Echo) -> None:
    seen = await echo.refused("Read", CreateLicenseRequest(display_name="a" * 2 * 1024 * 1024))
    assert (seen.code, seen.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert seen.violations == [("", "MESSAGE_TOO_LARGE")]


async def test_one_mebibyte_is_taken_and_one_byte_more_is_not(echo: Echo) -> None:
    head = len(CreateLicenseRequest(display_name="a" * 1_000_000).SerializeToString()) - 1_000_000
    fits = "a" * (1024 * 1024 - head)
    assert await echo.call("Read", CreateLicenseRequest(display_name=fits)) == fits
    assert (await echo.refused("Read", CreateLicenseRequest(display_name=fits + "a"))).violations == [
        ("", "MESSAGE_TOO_LARGE")
    ]


@pytest.mark.parametrize("raw", [b"\x0a", b"\x0a\x05ab", b"\x07", b"\x00\x00", b"\xff" * 12])
async def test_not_a_message(echo: Echo, raw: bytes) -> None:
    seen = await echo.refused("Read", raw)
    assert (seen.reason, seen.violations) == ("FIELD_INVALID", [("", "MESSAGE_MALFORMED")])


async def test_every_string_that_is_not_utf8_is_named(echo: Echo) -> None:
    request = CreateLicenseRequest(display_name=MARK, customer=CustomerRef(email=MARK), labels={"tier": MARK})
    seen = await echo.refused("Read", spoiled(request))
    assert sorted(seen.violations) == [
        ("customer.email", "UTF8_INVALID"),
        ("display_name", "UTF8_INVALID"),
        ('labels["tier"]', "UTF8_INVALID"),
    ]
    assert seen.info.metadata["violations"] == "3"


async def test_every_string_with_nul_is_named(echo: Echo) -> None:
    request = CreateLicenseRequest(display_name="a\0b", customer=CustomerRef(email="\0"), key="sound")
    seen = await echo.refused("Read", request)
    assert (seen.code, seen.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert sorted(seen.violations) == [("customer.email", "NUL_IN_STRING"), ("display_name", "NUL_IN_STRING")]


async def test_zero_bytes_that_are_no_nul_pass(echo: Echo) -> None:
    request = CreateLicenseRequest(display_name="Ada")
    request.metadata.update({"seats": 2.0})
    assert b"\0" in request.SerializeToString()
    assert await echo.call("Read", request) == "Ada"


async def test_a_large_message_is_walked_too(echo: Echo) -> None:
    request = CreateLicenseRequest(display_name="\0", external_id="a" * 100_000)
    assert (await echo.refused("Read", request)).violations == [("display_name", "NUL_IN_STRING")]


async def test_a_thousand_bad_strings_still_fit_a_trailer(echo: Echo) -> None:
    request = CreateLicenseRequest(labels={f"{number:0200}": "\0" for number in range(1000)})
    seen = await echo.refused("Read", request)
    assert seen.info.metadata["violations"] == "1000"
    assert 5 < len(seen.violations) < 1000


async def test_an_endless_message_still_fits_a_trailer(echo: Echo) -> None:
    async def refuse(_request: CreateLicenseRequest, _context: CallContext) -> NoReturn:
        raise DomainError(Reason.LICENSE_NOT_FOUND, "ß\x01" * 100_000, metadata={"id": "x" * 100_000})

    echo.servicer.behaviour = refuse
    seen = await echo.refused("Read")
    assert seen.reason == "LICENSE_NOT_FOUND"
    assert len(seen.info.metadata["id"]) == 256


async def test_unknown_method_of_a_known_service(echo: Echo) -> None:
    for path in (f"/{SERVICE}/Nope", f"/{SERVICE}/AnotherNope", "/no.such.Service/Nope"):
        seen = await echo.refused(path)
        assert (seen.code, seen.reason) == (grpc.StatusCode.UNIMPLEMENTED, "METHOD_UNKNOWN")
        assert dict(seen.info.metadata) == {"method": path}
    assert echo.count("unknown", "UNIMPLEMENTED", "METHOD_UNKNOWN", service="unknown") == 3
    assert b"Nope" not in echo.metrics.exposition()[0]


async def test_metadata_over_16_kib(echo: Echo) -> None:
    padding = tuple((f"x-pad-{number}", "a" * 2000) for number in range(9))
    seen = await echo.refused("Read", metadata=padding)
    assert (seen.reason, seen.violations) == ("FIELD_INVALID", [("", "METADATA_TOO_LARGE")])


async def test_metadata_under_16_kib(echo: Echo) -> None:
    padding = tuple((f"x-pad-{number}", "a" * 2000) for number in range(7))
    sent = (("authorization", "Bearer all"), *padding)
    assert await echo.call("Read", CreateLicenseRequest(display_name="Ada"), metadata=sent) == "Ada"


async def test_metadata_far_over_is_refused_by_grpc_itself(echo: Echo) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await echo.call("Read", metadata=(("x-pad", "a" * 100_000),))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_fault_is_logged_with_the_call_id_and_hidden_from_the_caller(echo: Echo) -> None:
    async def fail(_request: CreateLicenseRequest, _context: CallContext) -> NoReturn:
        raise RuntimeError("relation license.secret_table does not exist")

    lines = io.StringIO()
    lictor_logging.configure(json=True, stream=lines)
    try:
        echo.servicer.behaviour = fail
        seen = await echo.refused("Read", CreateLicenseRequest(key="CANARY-0123-4567"))
    finally:
        structlog.reset_defaults()
    assert (seen.code, seen.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL_FAULT")
    assert b"secret_table" not in seen.status.SerializeToString()
    assert seen.request_id in seen.message
    [line] = [json.loads(line) for line in lines.getvalue().splitlines() if "unhandled" in line]
    assert line["call_id"] == seen.request_id
    assert "RuntimeError: relation license.secret_table" in line["exception"]
    assert "CANARY" not in lines.getvalue()
    assert echo.count("Read", "INTERNAL", "INTERNAL_FAULT") == 1
