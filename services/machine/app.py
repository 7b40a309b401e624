"""Composition root of the machine service. It has no methods yet: it serves health, and says so in the log."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from shared.clock import Clock
from shared.crypto import root_secret
from shared.crypto.hashing import SecretHasher
from shared.db.pool import Database, PostgresTarget, read_passwords
from shared.db.roles import Role
from shared.facts.credentials import FactsAuthenticator
from shared.observe.logging import get_logger
from shared.rpc.runtime import App
from shared.settings import ProcessSettings


@asynccontextmanager
async def build(settings: ProcessSettings, clock: Clock) -> AsyncGenerator[App]:
    """Opens what the service stands on, closes it in the end."""
    del clock
    target = PostgresTarget(settings.postgres_dsn.get_secret_value(), read_passwords(settings.postgres_password_file))
    root = root_secret.load(settings.root_secret_file)
    async with (
        Database.opened(target, Role.MACHINE, size=settings.pool_size),
        Database.opened(target, Role.FACTS, size=settings.pool_size) as facts,
    ):
        get_logger("machine").warning(
            "no_services", target="machine", detail="this target has no methods yet; it serves health only"
        )
        yield App(bindings=(), authenticator=FactsAuthenticator(facts, SecretHasher(root)), ready=lambda: True)
