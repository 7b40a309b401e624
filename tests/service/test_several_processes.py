"""`lictor serve` with LICTOR_PROCESSES=2, on a real Postgres."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2

from shared.embedded.ports import free_listen
from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.echo import as_is
from tests.helpers.json_http import json_client
from tests.helpers.serving import TRANSPORTS, Served, ended, json_listen, launch, samples, serving, until

pytestmark = pytest.mark.parametrize("transport", TRANSPORTS)


async def calls(served: Served) -> dict[str, float]:
    """Answered calls by process."""
    found: dict[str, float] = {}
    for labels, value in samples((await served.get("/metrics"))[1], "lictor_calls_total").items():
        process = dict(labels)["process"]
        found[process] = found.get(process, 0.0) + value
    return found


async def test_they_serve_together_and_leave_together(
    postgres: EmbeddedPostgres, transport: str, tmp_path: Path
) -> None:
    listen = json_listen() if transport == "envoy" else free_listen("127.0.0.1")
    async with serving(postgres, tmp_path, transport, listen, processes="2") as served:

        async def whole() -> bool:
            return set(await calls(served)) == {"0", "1"}

        await until(whole, 20)
        async with served.suite.world() as world:

            async def asked_both() -> bool:
                async with served.suite.client(world.test_key) as client:  # a connection of its own
                    assert (await client.whoami()).account_id == world.account_id
                return all((await calls(served)).values())

            await until(asked_both, 10)
            if transport == "envoy":
                for _ in range(8):
                    async with json_client(listen.json, world.test_key) as http:
                        assert (await http.call("GET", "/v1/products")).status == 200
        async with grpc.aio.insecure_channel(served.suite.bound.ops_grpc_addr) as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check", as_is, health_pb2.HealthCheckResponse.FromString
            )
            asked = health_pb2.HealthCheckRequest(service="lictor.license.v1.ValidationService").SerializeToString()
            assert (await check(asked, timeout=5)).status == health_pb2.HealthCheckResponse.SERVING
        assert [status for status, _ in [await served.get("/livez"), await served.get("/readyz")]] == [200, 200]
        os.kill(served.process.pid, signal.SIGTERM)
        assert await served.ended() == 0, served.log()
        assert served.log().count(" left ") == 2
        assert "[error" not in served.log()


async def test_a_bad_secret_is_one_line(postgres: EmbeddedPostgres, transport: str, tmp_path: Path) -> None:
    settings = {
        "LICTOR_TARGET": "license",
        "LICTOR_TRANSPORT": transport,
        "LICTOR_PROCESSES": "2",
        "LICTOR_LOG_FORMAT": "text",
        "LICTOR_POSTGRES_DSN": postgres.dsn(),
        "LICTOR_ROOT_SECRET_FILE": str(tmp_path / "nothing"),
    }
    process = launch(tmp_path, free_listen("127.0.0.1"), settings)
    try:
        assert await ended(process) == 1
        lines = [line for line in process.log.read_text().splitlines() if "nothing" in line]
        assert len(lines) == 1, process.log.read_text()
        assert "lictor: root secret file" in lines[0]  # an Envoy that ends may be in the middle of a line of its own
    finally:
        await asyncio.to_thread(process.stop)
