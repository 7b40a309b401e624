"""`lictor call`: a method by name, JSON in, JSON or a readable error out."""

from __future__ import annotations

import asyncio
import io
import json
import os
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from lictor.account.v1.account_service_pb2 import WhoAmIResponse
from lictor.license.v1.license_service_pb2 import CreateLicenseRequest
from lictor.license.v1.validation_service_pb2 import ValidateLicenseRequest, ValidateLicenseResponse, ValidationCode

from services.call import CallUsageError, call, find_method, self_check
from tests.service.test_client_outside import Outside, Refusal, running_outside

NOT_FOUND = ValidateLicenseResponse(code=ValidationCode.NOT_FOUND, all_codes=[ValidationCode.NOT_FOUND])


@pytest.fixture(name="outside")
async def _outside() -> AsyncIterator[Outside]:
    async with running_outside() as outside:
        outside.answers["ValidateLicense"] = lambda request: NOT_FOUND
        yield outside


async def _call(outside: Outside, method: str, body: str) -> int:
    return await asyncio.to_thread(call, method, body, endpoint=outside.endpoint, api_key="sk_test_x")


@pytest.mark.parametrize(
    "name",
    [
        "ValidateLicense",
        "ValidationService/ValidateLicense",
        "license.v1.ValidationService/ValidateLicense",
        "lictor.license.v1.ValidationService.ValidateLicense",
        "/lictor.license.v1.ValidationService/ValidateLicense",
    ],
)
def test_a_method_has_many_names(name: str) -> None:
    assert find_method(name).path == "/lictor.license.v1.ValidationService/ValidateLicense"


def test_an_unknown_method_lists_those_near_it() -> None:
    with pytest.raises(CallUsageError, match=r"lictor\.license\.v1\.ValidationService/ValidateLicense"):
        find_method("ValidatLicense")


def test_a_part_of_a_name_is_not_the_name() -> None:
    with pytest.raises(CallUsageError, match="no method is called License"):
        find_method("License")


async def test_the_answer_is_json_with_its_zeros(outside: Outside, capsys: pytest.CaptureFixture[str]) -> None:
    assert await _call(outside, "ValidateLicense", '{"license": {"licenseKey": "K"}}') == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["valid"] is False
    assert shown["code"] == "NOT_FOUND"
    assert shown["allCodes"] == ["NOT_FOUND"]
    request = outside.requests(ValidateLicenseRequest)[0]
    assert request.license.license_key == "K"
    assert outside.seen[0].metadata["authorization"] == "Bearer sk_test_x"


async def test_the_body_comes_from_standard_input(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"policyId": "pol_1", "expireTime": "2030-01-01T00:00:00Z", "metadata": {"seats": [1, {"deep": True}]}}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(body)))
    assert await _call(outside, "CreateLicense", "-") == 0
    request = outside.requests(CreateLicenseRequest)[0]
    assert request.expire_time.ToDatetime(tzinfo=UTC) == datetime(2030, 1, 1, tzinfo=UTC)
    assert request.metadata.fields["seats"].list_value.values[1].struct_value.fields["deep"].bool_value
    assert uuid.UUID(request.request_id).version == 4


async def test_an_error_is_a_block_to_read(outside: Outside, capsys: pytest.CaptureFixture[str]) -> None:
    bad = (("policy_id", "REQUIRED", "must be given"), ("key", "KEY_INVALID", "8 to 255 characters"))
    outside.script(
        "CreateLicense",
        Refusal(grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", "two fields are wrong", {"violations": "2"}, bad),
    )
    assert await _call(outside, "CreateLicense", "{}") == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "INVALID_ARGUMENT FIELD_INVALID",
        "  two fields are wrong",
        "  policy_id: REQUIRED must be given",
        "  key: KEY_INVALID 8 to 255 characters",
        "  violations = 2",
        "  request id call_1",
    ]


@pytest.mark.parametrize(
    ("method", "body", "words"),
    [
        ("GetLicense", '{"nope": 1}', 'no field named "nope"'),
        ("GetLicense", "{", "the body is not a lictor.license.v1.GetLicenseRequest"),
        ("Nope", "{}", "no method is called Nope"),
    ],
)
async def test_what_cannot_be_sent(
    outside: Outside, capsys: pytest.CaptureFixture[str], method: str, body: str, words: str
) -> None:
    assert await _call(outside, method, body) == 1
    assert words in capsys.readouterr().err
    assert outside.seen == []


def test_a_key_does_not_leave_the_machine_in_plaintext(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("WhoAmI", "{}", endpoint="lictor.example:7420", api_key="sk_live_x") == 1
    assert "unencrypted" in capsys.readouterr().err


async def test_self_check_returns_the_lines_that_worked(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.argv", [str(Path.cwd() / "bin" / "lictor"), "up"])
    lines = await asyncio.to_thread(self_check, outside.endpoint, "sk_test_x")
    assert lines[0] == "bin/lictor call WhoAmI"
    assert lines[1].startswith("bin/lictor call ValidateLicense '{")
    assert len(lines) == 2
    outside.script("WhoAmI", Refusal(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID"))
    outside.answers["WhoAmI"] = lambda request: WhoAmIResponse()
    assert await asyncio.to_thread(self_check, outside.endpoint, "sk_test_x") == lines[1:]


async def test_call_lines_name_a_state_directory_that_is_not_the_default(outside: Outside, tmp_path: Path) -> None:
    elsewhere = tmp_path / "its state"
    lines = await asyncio.to_thread(self_check, outside.endpoint, "sk_test_x", state_dir=elsewhere)
    assert all(f" --state-dir '{elsewhere}' " in line for line in lines if "lictor call" in line)


@pytest.mark.parametrize("status", [0, 1])
async def test_self_check_shows_grpcurl_only_where_it_worked(
    outside: Outside, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int
) -> None:
    tool = tmp_path / "grpcurl"
    tool.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\nexit {status}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    lines = await asyncio.to_thread(self_check, outside.endpoint, "sk_test_x")
    assert len(lines) == 3 - status
    assert "sk_test_x" not in (tmp_path / "arguments").read_text() + "".join(lines)
