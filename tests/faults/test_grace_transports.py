"""The record is away: what both transports answer, and callers who have a certificate in place of a key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from lictor import AsyncLictor, TlsConfig
from lictor.account.v1.account_service_pb2 import WhoAmIRequest
from lictor.account.v1.account_service_pb2_grpc import AccountServiceStub
from lictor.common.v1.common_pb2 import Freshness, LicenseSelector
from lictor.license.v1 import validation_service_pb2 as pb
from lictor.license.v1.validation_service_pb2_grpc import ValidationServiceStub

from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.builders import open_shop
from tests.helpers.certificates import Authority
from tests.helpers.credentials import license_of
from tests.helpers.echo import refusal
from tests.helpers.embedded import kill, state_directory
from tests.helpers.serving import TRANSPORTS, Served, serving, until

GRACE, LEASED = Freshness.Source.GRACE, Freshness.Source.LEASED
AWAY: Final = "RECORD_UNREACHABLE"


@pytest.fixture(scope="module", name="server")
def _server() -> Generator[EmbeddedPostgres]:
    with state_directory() as state, EmbeddedPostgres(state, durable=False) as server:
        yield server


@dataclass(frozen=True)
class Caller:
    """A channel with a certificate of its own, and what it sends beside that."""

    channel: grpc.aio.Channel
    metadata: tuple[tuple[str, str], ...] = ()

    async def validate(self, request: pb.ValidateLicenseRequest) -> pb.ValidateLicenseResponse:
        stub = ValidationServiceStub(self.channel)
        return await stub.ValidateLicense(request, metadata=grpc.aio.Metadata(*self.metadata), timeout=5)

    async def batch(self, *requests: pb.ValidateLicenseRequest) -> pb.BatchValidateLicensesResponse:
        stub = ValidationServiceStub(self.channel)
        batch = pb.BatchValidateLicensesRequest(requests=requests)
        return await stub.BatchValidateLicenses(batch, metadata=grpc.aio.Metadata(*self.metadata), timeout=5)

    async def who(self) -> Any:
        stub = AccountServiceStub(self.channel)
        return await stub.WhoAmI(WhoAmIRequest(), metadata=grpc.aio.Metadata(*self.metadata), timeout=5)

    async def until_leased(self, request: pb.ValidateLicenseRequest) -> None:
        """Until memory answers; the record may only just have come back."""

        async def leased() -> bool:
            try:
                return (await self.validate(request)).decision.freshness == LEASED
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                return False

        await until(leased, 10)


@dataclass(frozen=True)
class Site:
    """A process that speaks mutual TLS, and who calls it: an account with a workload of each right."""

    served: Served
    authority: Authority
    key: str
    license_id: str
    secret: str
    publishable: str
    domain: str
    operator: AsyncLictor
    binding_id: str

    @asynccontextmanager
    async def caller(self, path: str = "", authorization: str = "") -> AsyncGenerator[Caller]:
        """A workload by its path; with an `authorization` that counts in its place."""
        pair = self.authority.client(*([f"spiffe://{self.domain}{path}"] if path else []))
        credentials = grpc.ssl_channel_credentials(self.authority.certificate, pair.key, pair.certificate)
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.secure_channel(self.served.listen.api, credentials, options=options) as channel:
            yield Caller(channel, (("authorization", authorization),) if authorization else ())

    def request(self) -> pb.ValidateLicenseRequest:
        return pb.ValidateLicenseRequest(license=LicenseSelector(license_key=self.key))


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=TRANSPORTS, name="site")
async def _site(
    server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncGenerator[Site]:
    folder: Path = tmp_path_factory.mktemp("site")
    authority, domain = Authority(), f"{uuid4().hex}.test"
    cert_file, key_file = authority.server().write(folder, "server")
    ca_file = authority.write(folder / "callers.pem")
    mine, my_key = authority.client().write(folder, "client")
    tls = TlsConfig(ca_file=ca_file, cert_file=mine, key_file=my_key)
    files = {"tls_cert_file": str(cert_file), "tls_key_file": str(key_file), "tls_client_ca_file": str(ca_file)}
    async with serving(server, folder, request.param, **files) as served:
        endpoint = served.listen.api
        async with AsyncLictor(api_key=served.suite.operator_key, endpoint=endpoint, tls=tls) as operator:
            account = await operator.accounts.create(display_name="Acme")
            bound: dict[str, str] = {}
            for path, scopes in (("/validates", ["licenses:validate"]), ("/reads", ["licenses:read"])):
                made = await operator.workload_bindings.create(
                    spiffe_id_pattern=f"spiffe://{domain}{path}",
                    account_id=account.account.account_id,
                    mode="TEST",
                    scopes=scopes,
                )
                bound[path] = made.workload_binding.workload_binding_id
            async with AsyncLictor(api_key=account.test_api_key, endpoint=endpoint, tls=tls) as client:
                shop = await open_shop(client, stale_ok_for=timedelta(hours=1), authentication="MIXED")
                made = await shop.issue()
                publishable = await client.api_keys.create(kind="PUBLISHABLE", scopes=["licenses:validate"])
            yield Site(
                served, authority, made.key, made.license.license_id, account.test_api_key, publishable.secret, domain,
                operator, bound["/reads"],
            )  # fmt: skip


@asynccontextmanager
async def down(server: EmbeddedPostgres) -> AsyncGenerator[None]:
    await asyncio.to_thread(kill, server)
    try:
        yield
    finally:
        await asyncio.to_thread(server.restart)


async def refused(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return refusal(caught.value).reason


async def test_every_kind_of_caller_is_answered_in_grace(server: EmbeddedPostgres, site: Site) -> None:
    async with (
        site.caller("/validates") as workload,
        site.caller("/reads") as reader,
        site.caller("/stranger") as stranger,
        site.caller(authorization=f"Bearer {site.secret}") as secret,
        site.caller(authorization=f"Bearer {site.publishable}") as publishable,
        site.caller(authorization=license_of(site.publishable, site.key)) as holder,
        site.caller("/validates", f"Bearer {site.secret}x") as mistyped,
    ):
        good = (workload, secret, publishable, holder)
        for caller in good:
            await caller.until_leased(site.request())
        assert await refused(reader.validate(site.request())) == "CALLER_NOT_ALLOWED"
        assert await refused(stranger.validate(site.request())) == "CREDENTIALS_INVALID"
        async with down(server):
            for caller in good:
                for _ in range(2):
                    answer = await caller.validate(site.request())
                    decision = answer.decision
                    assert (answer.valid, answer.license_id) == (True, site.license_id)
                    assert (decision.freshness, decision.degraded) == (GRACE, True)
                    ends = decision.stale_ok_until.ToDatetime(tzinfo=UTC)
                    assert timedelta(minutes=59) < ends - datetime.now(UTC) < timedelta(hours=1)
            unknown = pb.ValidateLicenseRequest(license=LicenseSelector(license_id="lic_unknown"))
            results = (await workload.batch(site.request(), unknown)).results
            assert [one.response.decision.freshness for one in results] == [GRACE, 0]
            assert results[1].status.code == grpc.StatusCode.UNAVAILABLE.value[0]  # pyright: ignore[reportIndexIssue]
            # Grace is for verdicts alone, for those who may have them, and for those who are known. Nobody is refused for what
            # was known before: it may be otherwise by now.
            assert await refused(workload.who()) == AWAY
            assert await refused(reader.validate(site.request())) == AWAY
            assert await refused(stranger.validate(site.request())) == AWAY
            assert await refused(mistyped.validate(site.request())) == "CREDENTIALS_INVALID"
        for caller in good:
            await caller.until_leased(site.request())


async def test_a_workload_that_has_lost_its_binding_is_not_let_in_by_it(server: EmbeddedPostgres, site: Site) -> None:
    """What this process knew of stays taken."""
    async with site.caller("/reads") as reader:
        await site.operator.workload_bindings.update(site.binding_id, scopes=["licenses:validate"])
        await reader.until_leased(site.request())
        await site.operator.workload_bindings.delete(site.binding_id)
        assert await refused(reader.validate(site.request())) == "CREDENTIALS_INVALID"
        async with down(server):
            assert await refused(reader.validate(site.request())) == AWAY
