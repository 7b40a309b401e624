"""`lictor serve` under Envoy, in a process of its own on a real Postgres: what it answers, and how it comes and goes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from lictor import AsyncLictor, InvalidArgument, NotFound, Unauthenticated
from lictor.account.v1.account_service_pb2 import WhoAmIRequest
from lictor.license.v1.catalog_service_pb2 import CreateProductRequest, ListProductsRequest

from shared.embedded.ports import free_listen
from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.echo import as_is, refusal
from tests.helpers.embedded import alive
from tests.helpers.serving import Served, ended, launch, needs_envoy, serving, until
from tests.helpers.suite import World, bearer

pytestmark = needs_envoy


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="served")
async def _served(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Served]:
    async with serving(postgres, tmp_path_factory.mktemp("envoy")) as running:
        yield running
    assert "Traceback" not in running.log(), running.log()
    assert "InvalidStateError" not in running.log(), running.log()


@pytest_asyncio.fixture(loop_scope="session", name="there")
async def _there(served: Served) -> AsyncIterator[World]:
    async with served.suite.world() as world:
        yield world


@asynccontextmanager
async def products_locked(served: Served) -> AsyncGenerator[None]:
    """Nobody reads or writes products while the block runs."""
    async with served.suite.admin() as admin, admin.transaction():
        await admin.execute("LOCK TABLE license.product IN ACCESS EXCLUSIVE MODE")
        yield


async def until_status(served: Served, status: int) -> None:
    """Returns once /readyz answers so."""

    async def answers() -> bool:
        return (await served.get("/readyz"))[0] == status

    await until(answers)


async def waits(served: Served, at_least: int) -> bool:
    """Whether so many statements wait for the lock."""
    query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'license.product'::regclass"
    async with served.suite.admin() as admin:
        return await admin.fetchval(query) >= at_least


async def waiting_for_products(served: Served, at_least: int) -> None:
    """Returns once so many statements wait for the lock."""
    await until(lambda: waits(served, at_least), 10)


def envoy_of(served: Served) -> int:
    """The Envoy that the process has started."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], text=True, capture_output=True, check=True).stdout
    [child] = [pid for pid, parent in map(str.split, listed.splitlines()) if int(parent) == served.process.pid]
    return int(child)


def command_of(pid: int) -> list[str]:
    """The arguments of a process, as everyone on the machine can read them."""
    command = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
    return subprocess.run(command, text=True, capture_output=True, check=True).stdout.split()


async def read(served: Served, key: str) -> None:
    await served.suite.catalog.ListProducts(ListProductsRequest(), metadata=bearer(key), timeout=20)


async def issue(client: AsyncLictor, code: str) -> str:
    product = (await client.products.create(code=code, display_name="Pro App")).product
    policy = (
        await client.policies.create(
            product_id=product.product_id, display_name="Desktop", template="desktop_app", require_fingerprint=False
        )
    ).policy
    return (await client.licenses.create(policy_id=policy.policy_id)).key


async def test_a_license_is_issued_and_validated(there: World) -> None:
    key = await issue(there.test, "PROAPP")
    result = await there.test.validate(key=key)
    assert (result.valid, result.code) == (True, "VALID")


async def test_errors_have_their_details(there: World, served: Served) -> None:
    with pytest.raises(NotFound) as missing:
        await there.test.licenses.get("lic_00000000000000000000000000000000")
    assert missing.value.reason == "LICENSE_NOT_FOUND"
    assert missing.value.request_id.startswith("call_")
    with pytest.raises(InvalidArgument) as invalid:
        await there.test.products.create(code="", display_name="")
    assert {violation.field for violation in invalid.value.violations} >= {"code"}
    async with served.suite.client("sk_test_nobody") as stranger:
        with pytest.raises(Unauthenticated) as refused:
            await stranger.whoami()
    assert refused.value.reason == "CREDENTIALS_INVALID"


async def test_an_unknown_method(served: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.suite.channel.unary_unary("/lictor.license.v1.LicenseService/Guess", as_is, as_is)(b"", timeout=5)
    seen = refusal(caught.value)
    assert (seen.code, seen.reason) == (grpc.StatusCode.UNIMPLEMENTED, "METHOD_UNKNOWN")


async def test_a_message_of_2_mib(there: World, served: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        request = CreateProductRequest(code="BIG", display_name="x" * (2 * 1024 * 1024))
        await served.suite.catalog.CreateProduct(request, metadata=bearer(there.test_key), timeout=10)
    assert refusal(caught.value).violations == [("", "MESSAGE_TOO_LARGE")]


async def test_a_deadline_that_passes_in_the_record(there: World, served: Served) -> None:
    async with products_locked(served):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.suite.catalog.ListProducts(ListProductsRequest(), metadata=bearer(there.test_key), timeout=0.3)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_cancelled_read_leaves_the_record_alone(there: World, served: Served) -> None:
    async with products_locked(served):
        call = served.suite.catalog.ListProducts(ListProductsRequest(), metadata=bearer(there.test_key), timeout=30)
        await waiting_for_products(served, 1)
        call.cancel()

        async def gone() -> bool:
            return not await waits(served, 1)

        await until(gone)


async def test_concurrent_calls(there: World, served: Served) -> None:
    key = await issue(there.test, "CONCURRENT")
    results = await asyncio.gather(*(there.test.validate(key=key) for _ in range(120)))
    assert all(result.valid for result in results)
    made = await asyncio.gather(
        *(there.test.products.create(code=f"CODE{number}", display_name="P") for number in range(40))
    )
    assert len({answer.product.product_id for answer in made}) == 40


async def test_health_and_reflection(served: Served) -> None:
    for address in (served.suite.bound.api_addr, served.suite.bound.ops_grpc_addr):
        async with grpc.aio.insecure_channel(address) as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check", as_is, health_pb2.HealthCheckResponse.FromString
            )
            assert (await check(b"", timeout=5)).status == health_pb2.HealthCheckResponse.SERVING
    ask = reflection_pb2.ServerReflectionRequest
    stream = served.suite.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=ask.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )(timeout=5)
    await stream.write(ask(list_services=""))
    listed = await stream.read()
    assert isinstance(listed, reflection_pb2.ServerReflectionResponse)
    names = {service.name for service in listed.list_services_response.service}
    assert {"lictor.license.v1.LicenseService", "grpc.health.v1.Health"} <= names
    await stream.done_writing()


async def test_the_ops_listener(served: Served) -> None:
    assert await served.get("/livez") == (200, "ok\n")
    _, metrics = await served.get("/metrics")
    assert 'transport="envoy"' in metrics
    assert 'lictor_calls_total{code="UNIMPLEMENTED"' in metrics


def test_the_admin_interface_is_private(served: Served) -> None:
    command = command_of(envoy_of(served))
    config = Path(command[command.index("-c") + 1])
    admin = json.loads(config.read_text())["admin"]["address"]["pipe"]["path"]
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert stat.S_IMODE(Path(admin).stat().st_mode) == 0o600
    assert not any("sk_" in part or "postgres" in part for part in command)


async def test_auto_takes_envoy_and_says_so(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    async with serving(postgres, tmp_path, "auto") as running, running.suite.world() as world:
        assert (await world.test.whoami()).account_id == world.account_id
        assert envoy_of(running)
    [line] = [line for line in running.log().splitlines() if "transport chosen" in line]
    assert "transport=envoy" in line
    assert "why=" in line


async def test_sigterm_under_load_drops_no_call_in_flight(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    async with serving(postgres, tmp_path, lame_duck_s="0.4") as running, running.suite.world() as world:
        async with running.suite.client(running.suite.operator_key) as operator:
            await operator.accounts.update(world.account_id, limits={"management_calls_per_second": 0})
        outcomes = list[str]()

        async def load() -> None:
            # Without the client's retries: each attempt counts.
            while running.process.exit_status() is None:
                try:
                    await running.suite.accounts.WhoAmI(WhoAmIRequest(), metadata=bearer(world.test_key), timeout=10)
                    outcomes.append("OK")
                except grpc.aio.AioRpcError as error:
                    outcomes.append(f"{error.code().name} {error.details()}")
                    await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as loads:
            for _ in range(16):
                loads.create_task(load())
            async with asyncio.TaskGroup() as slow, products_locked(running):
                for number in range(2):  # with the reads as many as one account may have at the record
                    slow.create_task(world.live.products.create(code=f"C{number}", display_name="P"))
                for _ in range(2):
                    slow.create_task(read(running, world.test_key))
                await waiting_for_products(running, 4)
                os.kill(running.process.pid, signal.SIGTERM)
                await until_status(running, 503)
                assert (await world.test.whoami()).key_id, "a lame duck still serves"
                await asyncio.sleep(0.7)  # the listener is closed by now; the four calls are still in flight
            assert await running.ended() == 0
    others = {outcome for outcome in outcomes if outcome != "OK"}
    assert outcomes.count("OK") > 50
    # A call was refused in words, or never left its caller: no connection broke under it.
    refused = ("UNAVAILABLE the process is shutting down", "UNAVAILABLE failed to connect to all addresses")
    assert all(outcome.startswith(refused) for outcome in others), others
    assert " left " in running.log()
    assert not alive(running.process.pid)


async def test_a_killed_envoy_is_noticed(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    async with serving(postgres, tmp_path) as running:
        os.kill(envoy_of(running), signal.SIGKILL)
        assert await running.ended() == 1
    assert "Envoy ended by itself with status -9" in running.log()


async def test_envoy_does_not_outlive_the_process_that_started_it(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    async with serving(postgres, tmp_path) as running:
        envoy = envoy_of(running)
        command = command_of(envoy)
        folder = Path(command[command.index("-c") + 1]).parent
        os.kill(running.process.pid, signal.SIGKILL)
        await until(lambda: not alive(envoy), 10)
    assert not os.path.exists(folder)  # noqa: ASYNC240 - a look


async def test_sigterm_before_it_is_up(postgres: EmbeddedPostgres, served: Served, tmp_path: Path) -> None:
    listen = free_listen("127.0.0.1")
    process = launch(tmp_path, listen, settings_of(postgres, served))
    try:
        await until(lambda: "Envoy started" in process.log.read_text(), 20)
        os.kill(process.pid, signal.SIGTERM)
        assert await ended(process) == 0, process.log.read_text()
    finally:
        await asyncio.to_thread(process.stop)


def settings_of(postgres: EmbeddedPostgres, served: Served) -> dict[str, str]:
    """What a second process beside `served` needs."""
    return {
        "LICTOR_TARGET": "all",
        "LICTOR_TRANSPORT": "envoy",
        "LICTOR_LOG_FORMAT": "text",
        "LICTOR_POSTGRES_DSN": postgres.dsn(),
        "LICTOR_ROOT_SECRET_FILE": str(served.suite.settings.root_secret_file),
    }


async def test_a_start_that_fails_says_why(postgres: EmbeddedPostgres, served: Served, tmp_path: Path) -> None:
    cases = {
        "LICTOR_ROOT_SECRET_FILE": (str(tmp_path / "nothing"), "nothing"),
        "LICTOR_API_ADDR": (served.suite.bound.api_addr, "Address already in use"),
        "LICTOR_OPS_ADDR": (served.suite.bound.ops_addr, "address already in use"),
    }
    for name, (value, words) in cases.items():
        listen = free_listen("127.0.0.1")
        process = launch(tmp_path, listen, {**settings_of(postgres, served), **listen.environment(), name: value})
        try:
            assert await ended(process) == 1, name
            assert words in process.log.read_text().splitlines()[-1], process.log.read_text()
        finally:
            await asyncio.to_thread(process.stop)
