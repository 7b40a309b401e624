"""What a handler sees of its call."""

from __future__ import annotations

import pytest

from shared.rpc.context import CallAbortedError, CallContext, metadata_bytes
from shared.tenancy import Mode, Principal, PrincipalKind
from tests.helpers.echo import NoWire


def context(*metadata: tuple[str, str | bytes], time_left_s: float | None = None) -> CallContext:
    return CallContext(method="/a.B/C", service="a.B", wire=NoWire(), metadata=metadata, time_left_s=time_left_s)


async def test_no_principal_before_authentication() -> None:
    call = context()
    with pytest.raises(RuntimeError):
        _ = call.principal
    principal = Principal(PrincipalKind.SECRET_KEY, "acc_1", Mode.LIVE, "key_1", frozenset(), None)
    call.set_principal(principal)
    assert call.principal is principal


async def test_the_credential_is_handed_out_once() -> None:
    call = context(("authorization", "Bearer x"), ("user-agent", "u"))
    assert call.invocation_metadata() == (("user-agent", "u"),)
    assert call.take_authorization() == ["Bearer x"]
    assert call.take_authorization() == []


@pytest.mark.parametrize(
    ("header", "trace"),
    [
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "0af7651916cd43dd8448eb211c80319c"),
        ("00-short-b7ad6b7169203331-01", None),
        ("", None),
    ],
)
async def test_trace_id(header: str, trace: str | None) -> None:
    assert context(("traceparent", header)).trace_id == trace


async def test_deadline() -> None:
    assert context().time_remaining() is None
    left = context(time_left_s=60).time_remaining()
    assert left is not None
    assert 50 < left <= 60
    assert context(time_left_s=-1).remaining_s() == 0


async def test_abort_keeps_details_set_before() -> None:
    call = context()
    call.set_details("why")
    with pytest.raises(CallAbortedError) as caught:
        await call.abort(5, trailing_metadata=(("x", "y"),))
    assert (caught.value.code, caught.value.details, call.trailing) == (5, "why", (("x", "y"),))


async def test_done_callbacks() -> None:
    call = context()
    seen: list[bool] = []
    call.add_done_callback(lambda over: seen.append(over.done()))
    assert not call.done()
    call.finish()
    assert seen == [True]


async def test_call_ids_differ() -> None:
    assert context().call_id.startswith("call_")
    assert context().call_id != context().call_id


def test_metadata_is_counted_as_http2_does() -> None:
    assert metadata_bytes([("ab", "cde"), ("f-bin", b"\0\0")]) == 5 + 7 + 2 * 32
