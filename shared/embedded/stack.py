"""Everything that a serving process stands on, from one state directory: servers, secret, migrated database."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.crypto.private_files import generate_line
from shared.db.migrate import migrate
from shared.db.pool import read_passwords
from shared.embedded.errors import EmbeddedError
from shared.embedded.postgres import EmbeddedPostgres
from shared.embedded.progress import Say, silent, step
from shared.embedded.state import StateDirectory
from shared.embedded.valkey import EmbeddedValkey

DEFAULTS: Final = {
    "LICTOR_TRANSPORT": "auto",
    "LICTOR_REFLECTION": "true",
    "LICTOR_LOG_FORMAT": "text",
    "LICTOR_LAME_DUCK_S": "0",  # no balancer looks at a private stack, so nobody needs time to notice that it goes
}
"""What a serving process on a private stack does unless the environment says otherwise."""
TLS_SETTINGS: Final = ("LICTOR_TLS_CERT_FILE", "LICTOR_TLS_KEY_FILE", "LICTOR_TLS_CLIENT_CA_FILE")
REDIS_URL: Final = "LICTOR_REDIS_URL"
"""Empty it says that there is to be none, as on a Postgres of one's own."""
ROOT_SECRET: Final = "root-secret"
KEK: Final = "kek"
TAKEN_AS_IT_IS: Final = "LICTOR_POSTGRES_ADMIN_DSN is not set: not migrating, run `lictor migrate` when there is need"


@dataclass(frozen=True, slots=True)
class Stack:
    """Started servers and a migrated database; `environment` is what a serving process needs of them."""

    state: StateDirectory
    environment: Mapping[str, str]
    postgres: EmbeddedPostgres | None
    valkey: EmbeddedValkey | None


@contextmanager
def stack(state_dir: Path, *, durable: bool = True, say: Say = silent) -> Generator[Stack]:
    """Takes the state directory, starts the embedded servers that no setting replaces, and migrates.

    AlreadyRunningError when another process has the directory; EmbeddedError when a server does not start, or when the
    environment asks for TLS, which callers on this machine would not speak.
    """
    if named := sorted(name for name in os.environ if name in TLS_SETTINGS):
        raise EmbeddedError(f"{', '.join(named)}: a private stack speaks plain text; TLS is for `lictor serve`")
    state = StateDirectory(state_dir)
    state.lock()
    with ExitStack() as cleanup:
        cleanup.callback(state.unlock)
        postgres = valkey = None
        settings = DEFAULTS | os.environ
        if not settings.get("LICTOR_POSTGRES_DSN"):
            postgres = EmbeddedPostgres(state.path, durable=durable)
            settings |= _root_secret(state, data_exist=postgres.exists)
            with step(say, "starting Postgres"):
                cleanup.enter_context(postgres)
            settings["LICTOR_POSTGRES_DSN"] = postgres.dsn()
            settings.pop("LICTOR_POSTGRES_PASSWORD_FILE", None)
            if REDIS_URL not in settings:
                valkey = EmbeddedValkey(state.path)
                with step(say, "starting Valkey"):
                    cleanup.enter_context(valkey)
                settings[REDIS_URL] = valkey.dsn()
        else:
            settings |= _root_secret(state, data_exist=False)
        settings |= _kek(state)
        with step(say, "migrating the database"):
            _migrate(postgres, settings, say)
        yield Stack(state, settings, postgres, valkey)


def _root_secret(state: StateDirectory, *, data_exist: bool) -> dict[str, str]:
    """The setting that names the root secret file, which is made with the first data."""
    if os.environ.get("LICTOR_ROOT_SECRET_FILE"):
        return {}
    path = state.path / ROOT_SECRET
    if not path.exists():
        if data_exist:
            raise EmbeddedError(
                f"{path} is gone, and the data beside it are of no use without it: "
                f"put it back, or remove {state.path} to start afresh"
            )
        state.write(ROOT_SECRET, generate_line())
    return {"LICTOR_ROOT_SECRET_FILE": str(path)}


def _kek(state: StateDirectory) -> dict[str, str]:
    """The setting that names the file of the key-encryption key, which is made where it is missing.

    Unlike the root secret it may be made beside data: those of an older version had none, and where it was lost, all but
    showing the keys that it sealed goes on.
    """
    if os.environ.get("LICTOR_KEK_FILE"):
        return {}
    path = state.path / KEK
    if not path.exists():
        state.write(KEK, generate_line())
    return {"LICTOR_KEK_FILE": str(path)}


def _migrate(postgres: EmbeddedPostgres | None, settings: Mapping[str, str], say: Say) -> None:
    if postgres is not None:
        asyncio.run(migrate(postgres.admin_dsn(), None))
    elif admin_dsn := settings.get("LICTOR_POSTGRES_ADMIN_DSN"):
        file = settings.get("LICTOR_POSTGRES_PASSWORD_FILE")
        asyncio.run(migrate(admin_dsn, read_passwords(Path(file)) if file else None))
    else:
        say(TAKEN_AS_IT_IS)
