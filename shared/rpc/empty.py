"""The app of a target that has no methods yet: its own role and the facts are opened, health is served, the log says so."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext

from shared.crypto import root_secret
from shared.db.pool import Database, PostgresTarget, read_passwords
from shared.db.processes import BEAT_S, ProcessRow
from shared.db.roles import Role
from shared.errors import DomainError, Reason
from shared.observe.logging import get_logger
from shared.rpc.runtime import App
from shared.rpc.share import Share
from shared.settings import ProcessSettings
from shared.tenancy import Principal


class Strangers:
    """Knows nobody: where no method is served, none has a caller."""

    async def authenticate(self, authorization: str | None, peer_identity: str, *, in_grace: bool = False) -> Principal:
        """CREDENTIALS_INVALID."""
        raise DomainError(Reason.CREDENTIALS_INVALID, "this process serves no methods that take a credential")


@asynccontextmanager
async def empty_app(target: str, role: Role, settings: ProcessSettings, *, alone: bool) -> AsyncGenerator[App]:
    """Starts as a full service would, with all refusals, so that a deployment of all targets is checked from the start.

    The process's row is its own to keep when it is `alone`, else that of whoever serves beside it.
    """
    record = PostgresTarget(settings.postgres_dsn.get_secret_value(), read_passwords(settings.postgres_password_file))
    root_secret.load(settings.root_secret_file)
    share = Share()
    async with (
        Database.opened(record, role, size=settings.pool_size) as db,
        Database.opened(record, Role.FACTS, size=1),
    ):
        get_logger(target).warning("no_services", detail="this target has no methods yet; it serves health only")
        row = ProcessRow(db, target)
        async with share.kept(row.beat, row.leave, BEAT_S) if alone else nullcontext():
            yield App((), Strangers(), ready=lambda: True, live=lambda: share.live)
