"""Logs: one line per event, the call's id in it, and no secret, whichever way it came."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Generator

import pytest
import structlog
from lictor.account.v1.account_service_pb2 import CreateAccountResponse
from lictor.common.v1.common_pb2 import LicenseSelector
from lictor.license.v1.license_service_pb2 import CreateLicenseRequest, CustomerRef
from lictor.license.v1.validation_service_pb2 import ValidateLicenseRequest

from shared.observe.logging import configure, get_logger, redact, redacted_fields
from shared.rpc.context import CallContext
from tests.helpers.echo import NoWire

CANARY = "CANARY-0123-4567"
API_KEY = "sk_live_" + "a1B2" * 12


@pytest.fixture
def out() -> Generator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure(json=True, stream=stream)
    yield stream
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def only(out: io.StringIO) -> dict[str, object]:
    [line] = out.getvalue().splitlines()
    return json.loads(line)


def test_redact_hides_what_the_contract_marks() -> None:
    request = CreateLicenseRequest(key=CANARY, display_name="Ada", customer=CustomerRef(email="a@b"), labels={"k": "v"})
    assert json.loads(redact(request)) == {
        "key": "[redacted]",
        "display_name": "Ada",
        "customer": {"email": "a@b"},
        "labels": {"k": "v"},
    }


def test_redact_goes_into_nested_messages() -> None:
    request = ValidateLicenseRequest(license=LicenseSelector(license_key=CANARY))
    assert redacted_fields(request) == {"license": {"license_key": "[redacted]"}}


def test_redact_says_nothing_of_fields_that_are_not_set() -> None:
    assert redact(CreateLicenseRequest()) == "{}"
    assert redacted_fields(CreateAccountResponse(test_api_key=API_KEY)) == {"test_api_key": "[redacted]"}


def test_redact_goes_into_maps_of_messages() -> None:
    request = CreateLicenseRequest()
    request.metadata.update({"a": [1.0, "x"]})
    assert redacted_fields(request) == {
        "metadata": {
            "fields": {"a": {"list_value": {"values": [{"number_value": 1.0}, {"string_value": "x"}]}}},
        }
    }


def test_redact_leaves_out_unknown_fields() -> None:
    raw = CreateLicenseRequest(display_name="Ada").SerializeToString() + b"\xfa\x3f\x06" + b"CANARY"
    assert "CANARY" not in redact(CreateLicenseRequest.FromString(raw))


async def test_a_line_is_json_with_the_calls_id(out: io.StringIO) -> None:
    call = CallContext(method="/a.B/C", service="a.B", wire=NoWire(), metadata=(), time_left_s=None)
    get_logger("mine").info("happened", count=3)
    line = only(out)
    assert (line["event"], line["count"], line["call_id"], line["level"], line["module"]) == (
        "happened",
        3,
        call.call_id,
        "info",
        "mine",
    )
    assert str(line["timestamp"]).endswith("Z")


def test_no_secret_whichever_way_it_comes(out: io.StringIO) -> None:
    log = get_logger("mine")
    log.info("message", request=CreateLicenseRequest(key=CANARY))
    log.info("nested", calls=[{"request": CreateLicenseRequest(key=CANARY)}])
    log.info("key", authorization=f"Bearer {CANARY}", password=CANARY, nested={"api_key": CANARY})
    log.info(f"in the text {API_KEY}", note=f"seen {API_KEY}")
    log.info(
        "credential", text=f"authorization was License pk_live_{'a1B2' * 12}:{CANARY}, Bearer cs_test_{'a1B2' * 12}"
    )
    log.info("dsn", url="postgresql://lictor:" + CANARY + "@localhost/db")
    try:
        raise RuntimeError(f"bad key {API_KEY}")
    except RuntimeError:
        log.exception("failed")
        logging.getLogger("foreign").exception("failed with %s", API_KEY)
    assert CANARY not in out.getvalue()
    assert API_KEY not in out.getvalue()
    assert "a1B2a1B2" not in out.getvalue()
    assert out.getvalue().count("RuntimeError: bad key [redacted]") == 2
    assert "raise RuntimeError" in out.getvalue(), "the traceback is there"


def test_foreign_loggers_write_the_same_lines(out: io.StringIO) -> None:
    logging.getLogger("aiohttp.server").warning("slow %s", "peer")
    line = only(out)
    assert (line["event"], line["level"], line["logger"]) == ("slow peer", "warning", "aiohttp.server")


def test_levels() -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure(json=False, level="warning", stream=stream)
    get_logger("mine").info("quiet")
    get_logger("mine").warning("loud", count=1)
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    assert "quiet" not in stream.getvalue()
    assert "loud" in stream.getvalue()
    assert "count=1" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
