"""The app of a target that has no methods yet: its own role and the facts are opened, health is served, the log says so."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from shared.crypto import root_secret
from shared.crypto.hashing import SecretHasher
from shared.db.pool import Database, PostgresTarget, read_passwords
from shared.db.roles import Role
from shared.facts.credentials import FactsAuthenticator
from shared.freshness.epoch import ensure_epoch
from shared.observe.logging import get_logger
from shared.rpc.runtime import App
from shared.settings import ProcessSettings


@asynccontextmanager
async def empty_app(target: str, role: Role, settings: ProcessSettings) -> AsyncGenerator[App]:
    """Starts as a full service would, with all refusals, so that a deployment of all targets is checked from the start."""
    record = PostgresTarget(settings.postgres_dsn.get_secret_value(), read_passwords(settings.postgres_password_file))
    hasher = SecretHasher(root_secret.load(settings.root_secret_file))
    async with (
        Database.opened(record, role, size=settings.pool_size),
        Database.opened(record, Role.FACTS, size=settings.pool_size) as facts,
    ):
        await ensure_epoch(facts)
        get_logger(target).warning("no_services", detail="this target has no methods yet; it serves health only")
        yield App(bindings=(), authenticator=FactsAuthenticator(facts, hasher), ready=lambda: True)
