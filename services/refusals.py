"""What can go wrong with a deployment, with a message that is enough. Loads drivers: look at it when something did."""

from __future__ import annotations

from typing import Final

import asyncpg

from shared.crypto.private_files import SecretFileError
from shared.db.migrate import MigrationError
from shared.db.roles import RoleRefusedError
from shared.rpc.child import ChildError
from shared.settings import SettingsError

REFUSALS: Final[tuple[type[Exception], ...]] = (
    SettingsError, SecretFileError, MigrationError, RoleRefusedError, ChildError, OSError, ValueError,
    asyncpg.PostgresError, asyncpg.InterfaceError,
)  # fmt: skip
