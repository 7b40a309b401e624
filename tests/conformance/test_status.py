"""How calls end: every code, every message, our details."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest

from shared.errors import Reason
from tests.conformance.client import Served, known
from tests.helpers.echo import refusal
from tests.protos.lictor_test.v1 import test_service_pb2 as pb

CODES = {code.value[0]: code for code in grpc.StatusCode if code is not grpc.StatusCode.OK}
MESSAGES = [
    "", "plain", "100% sure, 100%25", "%", "%zz", "ünïcode ☺ 😈", "two\nlines\r\n", "\ttab", "~\x7f\x01", "x" * 600,
    "a  b", " space on both sides ",
]  # fmt: skip


@pytest.mark.parametrize("number", CODES)
async def test_code(served: Served, number: int) -> None:
    behaviour = pb.Behaviour(code=number, message=f"code {number}")
    unary = served.stub.Unary(pb.UnaryRequest(behaviour=behaviour), metadata=known(), timeout=10)
    stream = served.stub.Output(
        pb.OutputRequest(behaviour=behaviour, parts=[pb.Part(count=1)]), metadata=known(), timeout=10
    )
    assert await stream.read() == pb.OutputResponse()
    for call in (unary, stream):
        assert (await call.code(), await call.details()) == (CODES[number], f"code {number}")


@pytest.mark.parametrize("message", MESSAGES)
async def test_message(served: Served, message: str) -> None:
    behaviour = pb.Behaviour(code=9, message=message)
    unary = served.stub.Unary(pb.UnaryRequest(behaviour=behaviour), metadata=known(), timeout=10)
    stream = served.stub.Output(
        pb.OutputRequest(behaviour=behaviour, parts=[pb.Part(count=1)]), metadata=known(), timeout=10
    )
    assert await stream.read() == pb.OutputResponse()
    for call in (unary, stream):
        assert (await call.code(), await call.details()) == (grpc.StatusCode.FAILED_PRECONDITION, message)


@pytest.mark.parametrize("reason", [Reason.LICENSE_NOT_FOUND, Reason.STATE_TRANSITION_INVALID, Reason.OVERLOADED])
async def test_details(served: Served, reason: Reason) -> None:
    behaviour = pb.Behaviour(reason=reason.value, message="no 100% näive license")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.Unary(pb.UnaryRequest(behaviour=behaviour), metadata=known(), timeout=10)
    seen = refusal(caught.value)
    assert (seen.reason, seen.message, seen.retry_ms) == (reason, "no 100% näive license", 1500)
    assert (seen.info.domain, dict(seen.info.metadata)) == ("lictor.dev", {"id": "res_1"})
    assert seen.request_id.startswith("call_")
    assert (seen.precondition is not None) == (reason is Reason.STATE_TRANSITION_INVALID)


async def test_unknown_credential(served: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.Unary(pb.UnaryRequest(), timeout=10)
    assert refusal(caught.value).reason == Reason.CREDENTIALS_INVALID


async def test_error_after_messages(served: Served) -> None:
    behaviour = pb.Behaviour(reason=Reason.LICENSE_NOT_FOUND.value, message="gone")
    request = pb.OutputRequest(behaviour=behaviour, parts=[pb.Part(count=3, bytes=10)])
    stream = served.stub.Output(request, metadata=known(), timeout=10)
    assert [len((await anext(aiter(stream))).payload) for _ in range(3)] == [10, 10, 10]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter(stream))
    assert refusal(caught.value).reason == Reason.LICENSE_NOT_FOUND


async def test_error_while_the_client_still_sends(served: Served) -> None:
    stream = served.stub.Duplex(metadata=known(), timeout=10)
    await stream.write(pb.OutputRequest(behaviour=pb.Behaviour(code=8, message="enough")))
    assert (await stream.code(), await stream.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")
