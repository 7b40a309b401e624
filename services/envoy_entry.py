"""What Envoy loads: the target that the environment names, as an ASGI application."""

from __future__ import annotations

from typing import Final

import asyncpg

from services.main import read_settings, read_target, serve_target
from shared.crypto.root_secret import RootSecretError
from shared.db.migrate import MigrationError
from shared.db.roles import RoleRefusedError
from shared.observe.logging import configure
from shared.rpc.envoy.host import EnvoyApplication, EnvoyHost
from shared.settings import LogFormat, SettingsError

_EXPECTED: Final = (
    SettingsError, RootSecretError, MigrationError, RoleRefusedError, asyncpg.PostgresError, OSError, ValueError
)  # fmt: skip


async def _serve(host: EnvoyHost) -> None:
    target = read_target()
    settings = read_settings(target)
    configure(json=settings.log_format is LogFormat.JSON, level=settings.log_level)
    await serve_target(target, settings, host)


app: Final = EnvoyApplication(_serve, _EXPECTED)
