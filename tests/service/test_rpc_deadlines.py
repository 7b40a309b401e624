"""Deadlines and cancellation: reads end with their caller, writes finish without."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator

import grpc
import pytest
import pytest_asyncio
from lictor.license.v1.license_service_pb2 import CreateLicenseRequest

from shared.observe.metrics import Metrics
from shared.rpc.context import CallContext
from shared.rpc.deadlines import deadlines, set_deadline
from shared.rpc.middleware import error_mapping
from shared.rpc.routes import Body, ServiceBinding, build_routes, method_spec
from shared.tasks import TaskGroupTracker
from tests.helpers.echo import ECHO, Echo, EchoServicer, NoWire, Refusal, as_is, echo_server, refusal


@pytest_asyncio.fixture
async def echo() -> AsyncGenerator[Echo]:
    async with echo_server() as running:
        yield running


class Stuck:
    """A behaviour that waits for `go`, and tells how it ended."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.go = asyncio.Event()
        self.finished = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, _request: CreateLicenseRequest, _context: CallContext) -> str:
        self.began.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        self.finished.set()
        return "done"


def context_of(method: str, time_left_s: float | None) -> CallContext:
    return CallContext(method=method, service="s", wire=NoWire(), metadata=(), time_left_s=time_left_s)


async def budget(echo: Echo, method: str, given_s: float | None) -> float:
    """The seconds that a handler is given."""
    seen: list[float] = []

    async def look(_request: CreateLicenseRequest, context: CallContext) -> str:
        seen.append(context.deadline - context.arrived)
        assert context.remaining_s() <= seen[0]
        assert context.time_remaining() is not None
        return ""

    echo.servicer.behaviour = look
    await echo.call(method, timeout_s=given_s)
    return seen[0]


async def test_no_deadline_means_ten_seconds_or_one(echo: Echo) -> None:
    assert await budget(echo, "Read", None) == pytest.approx(9.98)
    assert await budget(echo, "Write", None) == pytest.approx(9.98)
    assert await budget(echo, "Hot", None) == pytest.approx(0.998)


async def test_a_callers_deadline_counts(echo: Echo) -> None:
    # gRPC rounds timeouts up on the wire, by as much as 1 %.
    assert 3.0 < await budget(echo, "Read", 4.0) <= 4.04 - 0.02


@pytest.mark.parametrize(
    ("method", "given_s", "budget_s"),
    [
        ("Read", 4.0, 3.98),
        ("Write", 4.0, 3.98),
        ("Hot", 4.0, 3.998),
        ("Read", 0.010, 0.005),
        ("Hot", 0.005, 0.003),
        ("Expand", None, math.inf),
        ("Expand", 4.0, 3.98),
    ],
)
async def test_a_part_is_kept_back_for_the_way_home(method: str, given_s: float | None, budget_s: float) -> None:
    context = context_of(method, given_s)
    set_deadline(method_spec(ECHO.methods_by_name[method]), context)
    assert context.deadline - context.arrived == pytest.approx(budget_s)


@pytest.mark.parametrize("left", [0.0, 0.0049])
async def test_less_than_five_milliseconds_are_refused(left: float) -> None:
    # Over a socket such a call is over before its answer is back, so the layer is asked itself.
    ran = asyncio.Event()

    async def inner(_context: CallContext, _body: Body) -> bytes:
        ran.set()
        return b""

    metrics = Metrics()
    spec = method_spec(ECHO.methods_by_name["Read"])
    call = deadlines(TaskGroupTracker(), metrics)(spec, inner)
    with pytest.raises(Exception, match="less than 5 ms") as caught:
        await call(context_of(spec.path, left), b"")
    assert (getattr(caught.value, "reason", None), getattr(caught.value, "metadata", None)) == (
        "DEADLINE_TOO_SHORT",
        {"requiredMs": "5"},
    )
    assert not ran.is_set()
    assert await call(context_of(spec.path, 0.5), b"") == b""
    labels = {"service": spec.service, "method": "Read", "code": "DEADLINE_EXCEEDED", "reason": "DEADLINE_TOO_SHORT"}
    assert metrics.registry.get_sample_value("lictor_calls_total", labels) == 1


async def test_a_read_is_cancelled_at_its_deadline(echo: Echo) -> None:
    stuck = Stuck()
    echo.servicer.behaviour = stuck
    seen = await echo.refused("Read", timeout_s=0.2)
    assert (seen.code, seen.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT")
    assert 0 < int(seen.info.metadata["requiredMs"]) <= 190
    assert stuck.cancelled.is_set()
    assert echo.count("Read", "DEADLINE_EXCEEDED", "DEADLINE_TOO_SHORT") == 1
    assert echo.gate.in_flight == 0


async def test_a_read_is_cancelled_when_its_caller_leaves(echo: Echo) -> None:
    stuck = Stuck()
    over = asyncio.Event()
    contexts: list[CallContext] = []

    async def watched(request: CreateLicenseRequest, context: CallContext) -> str:
        contexts.append(context)
        context.add_done_callback(lambda _: over.set())
        return await stuck(request, context)

    echo.servicer.behaviour = watched
    call = echo.start("Read")
    await stuck.began.wait()
    call.cancel()
    await asyncio.wait_for(stuck.cancelled.wait(), 5)
    await asyncio.wait_for(over.wait(), 5)
    assert (contexts[0].done(), contexts[0].cancelled()) == (True, True)
    assert echo.count("Read", "CANCELLED") == 1
    assert echo.gate.in_flight == 0


async def test_a_write_finishes_though_its_deadline_passed(echo: Echo) -> None:
    stuck = Stuck()
    echo.servicer.behaviour = stuck
    seen = await echo.refused("Write", timeout_s=0.2)
    assert (seen.code, seen.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT")
    assert not stuck.cancelled.is_set()
    assert (len(echo.tasks), echo.gate.in_flight) == (1, 1), "a write that goes on keeps its place"
    stuck.go.set()
    assert await echo.tasks.drain(5) == 0
    assert stuck.finished.is_set()
    assert echo.gate.in_flight == 0
    assert echo.count("Write", "OK") == 1
    labels = {"service": ECHO.full_name, "method": "Write"}
    assert echo.metrics.registry.get_sample_value("lictor_writes_outlived_total", labels) == 1


async def test_a_write_finishes_though_its_caller_left(echo: Echo) -> None:
    stuck = Stuck()
    over = asyncio.Event()

    async def watched(request: CreateLicenseRequest, context: CallContext) -> str:
        context.add_done_callback(lambda _: over.set())
        return await stuck(request, context)

    echo.servicer.behaviour = watched
    call = echo.start("Write")
    await stuck.began.wait()
    call.cancel()
    await asyncio.wait_for(over.wait(), 5)
    assert (len(echo.tasks), echo.gate.in_flight) == (1, 1), "a write that goes on keeps its place"
    stuck.go.set()
    assert await echo.tasks.drain(5) == 0
    assert stuck.finished.is_set()
    assert not stuck.cancelled.is_set()


async def test_a_write_ends_at_its_own_bound() -> None:
    stuck = Stuck()
    servicer = EchoServicer()
    servicer.behaviour = stuck
    tasks = TaskGroupTracker()
    chain = [deadlines(tasks, Metrics(), write_bound_s=0.05), error_mapping]
    route = build_routes([ServiceBinding(ECHO, servicer)], chain)[f"/{ECHO.full_name}/Write"]
    with pytest.raises(Exception, match="did not finish"):
        await route.call(context_of(route.spec.path, 10.0), b"")
    assert stuck.cancelled.is_set()
    assert len(tasks) == 0


async def test_a_timeout_inside_a_handler_is_a_fault_not_a_deadline(echo: Echo) -> None:
    async def fail(_request: CreateLicenseRequest, _context: CallContext) -> str:
        raise TimeoutError("the database took too long")

    echo.servicer.behaviour = fail
    for method in ("Read", "Write"):
        assert (await echo.refused(method)).reason == "INTERNAL_FAULT"


async def test_a_stream_is_cancelled_at_its_deadline(echo: Echo) -> None:
    stuck = Stuck()
    echo.servicer.behaviour = stuck
    path = f"/{ECHO.full_name}/Expand"
    metadata = grpc.aio.Metadata(("authorization", "Bearer all"))
    stream = echo.channel.unary_stream(path, as_is, as_is)(b"", timeout=0.2, metadata=metadata)
    seen: Refusal | None = None
    try:
        async for _ in stream:
            raise AssertionError("nothing can come")
    except grpc.aio.AioRpcError as error:
        seen = refusal(error)
    assert seen is not None
    assert seen.reason == "DEADLINE_TOO_SHORT"
    assert stuck.cancelled.is_set()
