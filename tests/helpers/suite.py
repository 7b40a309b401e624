"""The whole suite in this process, over a real channel, on a real Postgres; and worlds of one account each to test in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import asyncpg
import grpc
import grpc.aio
from lictor import AsyncLictor
from lictor.account.v1 import account_service_pb2_grpc as account_grpc
from lictor.license.v1 import catalog_service_pb2_grpc as catalog_grpc
from lictor.license.v1 import license_service_pb2_grpc as license_grpc
from lictor.license.v1 import token_service_pb2_grpc as token_grpc
from lictor.license.v1 import validation_service_pb2_grpc as validation_grpc
from pydantic import SecretStr

from services import suite as services_suite
from services.bootstrap import bootstrap_operator_key
from services.suite_settings import SuiteSettings
from shared.clock import SystemClock
from shared.crypto.private_files import generate_line
from shared.db.migrate import migrate
from shared.rpc.runtime import Bound, ServeSettings, serve
from shared.settings import Transport
from shared.tenancy import Mode, Tenant
from tests.helpers.lease import SHORT_LEASE_MS, set_lease

QUIET = ("boundary_interval_s", "mark_interval_s", "machine_sweep_interval_s", "request_sweep_interval_s")
"""Workers whose writes would show in the rows that other tests compare."""


@dataclass(frozen=True)
class World:
    """One fresh account: clients of both modes, and what a test needs to look into its rows."""

    account_id: str
    test_key: str = field(repr=False)
    live_key: str = field(repr=False)
    test: AsyncLictor
    live: AsyncLictor

    def tenant(self, mode: Mode = Mode.TEST) -> Tenant:
        return Tenant(self.account_id, mode)


@dataclass(frozen=True)
class Suite:
    """The running suite. `admin_dsn` sees every row, as no service does."""

    bound: Bound
    settings: SuiteSettings
    admin_dsn: str
    operator_key: str = field(repr=False)
    channel: grpc.aio.Channel

    def client(self, api_key: str) -> AsyncLictor:
        return AsyncLictor(api_key=api_key, endpoint=self.bound.api_addr)

    @property
    def accounts(self) -> account_grpc.AccountServiceAsyncStub:
        return account_grpc.AccountServiceStub(self.channel)

    @property
    def catalog(self) -> catalog_grpc.CatalogServiceAsyncStub:
        return catalog_grpc.CatalogServiceStub(self.channel)

    @property
    def licenses(self) -> license_grpc.LicenseServiceAsyncStub:
        return license_grpc.LicenseServiceStub(self.channel)

    @property
    def tokens(self) -> token_grpc.TokenServiceAsyncStub:
        return token_grpc.TokenServiceStub(self.channel)

    @property
    def validation(self) -> validation_grpc.ValidationServiceAsyncStub:
        return validation_grpc.ValidationServiceStub(self.channel)

    @asynccontextmanager
    async def admin(self) -> AsyncGenerator[asyncpg.Connection]:
        """A superuser's connection, to look at the record from outside."""
        conn = await asyncpg.connect(self.admin_dsn)
        try:
            for name in ("json", "jsonb"):
                await conn.set_type_codec(name, encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
            yield conn
        finally:
            await conn.close()

    @asynccontextmanager
    async def world(self) -> AsyncGenerator[World]:
        """A fresh account."""
        async with self.client(self.operator_key) as operator:
            made = await operator.accounts.create(display_name="World", request_id=str(uuid4()))
        async with self.client(made.test_api_key) as test, self.client(made.live_api_key) as live:
            yield World(made.account.account_id, made.test_api_key, made.live_api_key, test, live)


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a raw call."""
    return (("authorization", f"Bearer {key}"),)


class Record(Protocol):
    """Where a suite's rows are: a Postgres, or one database of it."""

    def dsn(self, user: str = "") -> str: ...
    def admin_dsn(self) -> str: ...


def new_settings(postgres: Record, folder: Path, **more: Any) -> SuiteSettings:
    """Settings of a process on a test's own Postgres, with a root secret and a KEK in `folder`."""
    secret_file, kek_file = folder / "root-secret", folder / "kek"
    for path in (secret_file, kek_file):
        if not path.exists():
            path.touch(0o600)
            path.write_text(generate_line())
    more.setdefault("kek_file", kek_file)
    for interval in QUIET:  # what time does by itself is for the tests that ask for it
        more.setdefault(interval, 86400.0)
    more.setdefault("postgres_dsn", SecretStr(postgres.dsn()))
    return SuiteSettings(
        transport=Transport.GRPCIO,
        root_secret_file=secret_file,
        api_addr="127.0.0.1:0",
        ops_addr="127.0.0.1:0",
        ops_grpc_addr="127.0.0.1:0",
        **more,
    )


_COUNTED_ALONE = """
    CREATE FUNCTION record.count_no_other() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RETURN CASE WHEN EXISTS (SELECT FROM record.process WHERE process_id = NEW.process_id) THEN NEW END;
    END $$;
    CREATE TRIGGER count_no_other BEFORE INSERT ON record.process FOR EACH ROW EXECUTE FUNCTION record.count_no_other();
"""


@asynccontextmanager
async def counted_alone(suite: Suite) -> AsyncGenerator[None]:
    """Whoever a test builds on the suite's record takes no share of its rates: a suite would go on with half of them for ten
    seconds, and so into the tests that come next."""
    async with suite.admin() as admin:
        await admin.execute(_COUNTED_ALONE)
    yield
    async with suite.admin() as admin:
        await admin.execute("DROP FUNCTION record.count_no_other CASCADE")


@asynccontextmanager
async def running_suite(
    postgres: Record, folder: Path, l_ms: int = SHORT_LEASE_MS, **more: Any
) -> AsyncGenerator[Suite]:
    """Migrates, serves target=all in this event loop, and stops it in the end."""
    settings = new_settings(postgres, folder, **more)
    admin_dsn = postgres.admin_dsn()
    await migrate(admin_dsn)
    await set_lease(admin_dsn, l_ms)
    key_file = folder / f"operator-{uuid4().hex}"
    await bootstrap_operator_key(admin_dsn, settings.root_secret_file, key_file)
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = ServeSettings(
        api_addr=settings.api_addr,
        ops_addr=settings.ops_addr,
        ops_grpc_addr=settings.ops_grpc_addr,
        reflection=True,
        max_in_flight=settings.max_in_flight,
        account_share_percent=settings.account_share_percent,
        lame_duck_s=0.0,
        drain_s=5.0,
    )
    async with services_suite.build(settings, SystemClock()) as app:
        task = asyncio.create_task(serve(app, serving, SystemClock(), on_ready=ready.set_result, stop=stop))
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        bound: Bound = ready.result()
        async with grpc.aio.insecure_channel(bound.api_addr) as channel:
            yield Suite(bound, settings, admin_dsn, key_file.read_text().strip(), channel)
        stop.set()
        await task
