"""Streams of licenses and the connections that they come over: mutual TLS, and a connection that gets too old."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import grpc.aio
import pytest
from lictor import AsyncLictor, TlsConfig
from lictor.license.v1.validation_service_pb2 import WatchLicensesRequest
from lictor.license.v1.validation_service_pb2_grpc import ValidationServiceStub

from shared.embedded.postgres import EmbeddedPostgres
from shared.observe.metrics import Metrics
from shared.rpc import grpcio, runtime
from shared.rpc.grpcio import GrpcioTransport
from tests.helpers.builders import open_shop, refused_by
from tests.helpers.certificates import Authority
from tests.helpers.serving import TRANSPORTS, serving
from tests.helpers.suite import running_suite
from tests.helpers.watching import NOTHING, Kind, Watcher, watching

AGE_S = 1.0


@pytest.mark.parametrize("loss", ["scope", "binding"])
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_workload_that_loses_its_right_loses_its_stream(
    postgres: EmbeddedPostgres, tmp_path: Path, transport: str, loss: str
) -> None:
    authority, workload = Authority(), f"spiffe://{uuid4().hex}.test/follows"
    cert_file, key_file = authority.server().write(tmp_path, "server")
    ca_file = authority.write(tmp_path / "callers.pem")
    mine, my_key = authority.client().write(tmp_path, "client")
    tls = TlsConfig(ca_file=ca_file, cert_file=mine, key_file=my_key)
    files = {"tls_cert_file": str(cert_file), "tls_key_file": str(key_file), "tls_client_ca_file": str(ca_file)}
    pair = authority.client(workload)
    credentials = grpc.ssl_channel_credentials(authority.certificate, pair.key, pair.certificate)
    async with (
        serving(postgres, tmp_path, transport, **files) as served,
        AsyncLictor(api_key=served.suite.operator_key, endpoint=served.listen.api, tls=tls) as operator,
        grpc.aio.secure_channel(served.listen.api, credentials) as channel,
    ):
        account = await operator.accounts.create(display_name="Acme")
        binding = await operator.workload_bindings.create(
            spiffe_id_pattern=workload, account_id=account.account.account_id, mode="TEST", scopes=["licenses:read"]
        )
        binding_id = binding.workload_binding.workload_binding_id
        async with AsyncLictor(api_key=account.test_api_key, endpoint=served.listen.api, tls=tls) as client:
            license_id = (await (await open_shop(client)).issue()).license.license_id
            call: Any = ValidationServiceStub(channel).WatchLicenses(WatchLicensesRequest())
            watcher = Watcher(call, NOTHING)
            await watcher.until_kind(Kind.SNAPSHOT_COMPLETE)
            # What it may still read it reads on.
            await operator.workload_bindings.update(binding_id, scopes=["licenses:read", "keys:read"])
            await client.licenses.suspend(license_id)
            await watcher.until_code(license_id, "SUSPENDED")
            if loss == "scope":
                await operator.workload_bindings.update(binding_id, scopes=["keys:read"])
            else:
                await operator.workload_bindings.delete(binding_id)
            await client.licenses.revoke(license_id)
            found = await refused_by(watcher.refused())
        assert found.reason == ("CALLER_NOT_ALLOWED" if loss == "scope" else "CREDENTIALS_INVALID")
        assert watcher.code(license_id) == "SUSPENDED", "what happened after the right was gone is not told"


class Aging(GrpcioTransport):
    """Sends its callers away after a second, and gives what is in flight another."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__(metrics, AGE_S)


@pytest.fixture(name="aging")
def _aging(monkeypatch: pytest.MonkeyPatch) -> None:
    options = tuple(pair for pair in grpcio.OPTIONS if pair[0] != "grpc.max_connection_age_grace_ms")
    monkeypatch.setattr(grpcio, "OPTIONS", (*options, ("grpc.max_connection_age_grace_ms", int(AGE_S * 1000))))
    monkeypatch.setattr(runtime, "GrpcioTransport", Aging)


@pytest.mark.usefixtures("aging")
async def test_a_stream_goes_on_from_where_its_connection_ended(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    async with running_suite(postgres, tmp_path) as suite, suite.world() as world:
        license_id = (await (await open_shop(world.test)).issue()).license.license_id
        async with watching(suite, world.test_key) as watcher:
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await watcher.refused()
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        await world.test.licenses.suspend(license_id)
        more: dict[str, Any] = {"resume_token": watcher.token, "held": watcher.held}
        async with watching(suite, world.test_key, complete=False, **more) as after:
            await after.until_code(license_id, "SUSPENDED")
        assert "SNAPSHOT_BEGUN" not in {kind for kind, _ in after.told}


@pytest.mark.usefixtures("aging")
async def test_the_client_does_not_see_that_its_connections_end(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    """Over several of them, each change is told, and nothing is told anew from the beginning."""
    async with running_suite(postgres, tmp_path) as suite, suite.world() as world:
        license_id = (await (await open_shop(world.test)).issue()).license.license_id
        told: list[tuple[str, str]] = []
        changes = world.test.licenses.watch()
        async with asyncio.timeout(30):
            async for change in changes:
                told.append((change.kind, "" if change.result is None else change.result.code))
                if told[-1][0] == "SNAPSHOT_COMPLETE":
                    break
            for _ in range(3):
                await asyncio.sleep(1.2 * AGE_S)
                for act, code in (
                    (world.test.licenses.suspend, "SUSPENDED"),
                    (world.test.licenses.reinstate, "VALID"),
                ):
                    await act(license_id)
                    async for change in changes:
                        told.append((change.kind, "" if change.result is None else change.result.code))
                        if told[-1] == ("DELTA", code):
                            break
        kinds = [kind for kind, _ in told]
        assert kinds.count("SNAPSHOT_BEGUN") == 1
