"""`lictor keys rewrap`: an old version of the KEK can go, and nobody notices."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import pytest_asyncio

from services.license import key_store, signing_key_store
from services.rewrap import rewrap
from shared.crypto import keyring
from shared.crypto.keyring import KekVersionError, Place
from shared.crypto.private_files import generate_line
from shared.db.migrate import migrate
from shared.embedded.postgres import EmbeddedPostgres
from shared.tenancy import Mode, Tenant
from tests.helpers.embedded import TREE
from tests.helpers.record import Scratch, insert, sample, scratch

TENANTS = (Tenant("acc_one", Mode.TEST), Tenant("acc_one", Mode.LIVE), Tenant("acc_two", Mode.LIVE))
KEYS_EACH = 5


@dataclass(frozen=True)
class Deployment:
    """A database with sealed keys of three worlds, and a KEK file with one version."""

    db: Scratch
    kek_file: Path

    @property
    def env(self) -> dict[str, str]:
        return {"LICTOR_POSTGRES_DSN": self.db.dsn(), "LICTOR_KEK_FILE": str(self.kek_file)}

    async def versions(self) -> list[int]:
        """The versions of the KEK that keys are sealed under, one of each key."""
        async with self.db.connect() as admin:
            rows = await admin.fetch(
                "SELECT kek_version FROM license.license_key WHERE kek_version IS NOT NULL ORDER BY 1"
            )
        return [row["kek_version"] for row in rows]

    async def opened(self) -> set[str]:
        """All keys, as this KEK file opens them."""
        kek, found = keyring.load(self.kek_file), set[str]()
        async with self.db.connect() as admin:
            for row in await admin.fetch("SELECT * FROM license.license_key WHERE kek_version IS NOT NULL"):
                place = Place(
                    key_store.SEALED_COLUMN, Tenant(row["account_id"], Mode(row["mode"])), row["key_hash"].hex()
                )
                sealed = keyring.Wrapped(row["kek_version"], row["nonce"], row["ciphertext"])
                found.add((await kek.unwrap(sealed, place)).decode())
        return found


@pytest_asyncio.fixture(loop_scope="session", name="deployment")
async def _deployment(postgres: EmbeddedPostgres, tmp_path: Path) -> AsyncGenerator[Deployment]:
    kek_file = tmp_path / "kek"
    kek_file.touch(0o600)
    kek_file.write_text(generate_line(1))
    kek = keyring.load(kek_file)
    async with scratch(postgres) as db, db.connect() as admin:
        await migrate(db.admin_dsn)
        known: set[str] = set()
        for number, tenant in enumerate(TENANTS):
            rows = sample(tenant, number)
            if tenant.account_id not in known:
                await insert(admin, "license.account", rows["license.account"])
                known.add(tenant.account_id)
            hashed = {**rows["license.license_key"], "license_id": None, "kek_version": None, "nonce": None}
            await insert(admin, "license.license_key", {**hashed, "ciphertext": None})
            for n in range(KEYS_EACH):
                key_hash = bytes((1, number, n))
                place = Place(key_store.SEALED_COLUMN, tenant, key_hash.hex())
                sealed = await kek.wrap(f"KEY-{tenant.account_id}-{tenant.mode}-{n}".encode(), place)
                await admin.execute(
                    "INSERT INTO license.license_key (account_id, mode, key_hash, kek_version, nonce, ciphertext) "
                    "VALUES ($1, $2, $3, $4, $5, $6)",
                    tenant.account_id, tenant.mode.value, key_hash, sealed.kek_version, sealed.nonce, sealed.ciphertext,
                )  # fmt: skip
        yield Deployment(db, kek_file)


async def test_every_key_of_every_world_is_sealed_anew_and_opens(deployment: Deployment) -> None:
    total = len(TENANTS) * KEYS_EACH
    before = await deployment.opened()
    assert len(before) == total
    nothing = await rewrap(deployment.env)
    assert (nothing.version, nothing.rewrapped, nothing.unopened) == (1, 0, 0)
    new_line = generate_line(2)
    deployment.kek_file.write_text(deployment.kek_file.read_text() + new_line)
    done = await rewrap(deployment.env, batch_rows=2)
    assert (done.version, done.rewrapped, done.unopened) == (2, total, 0)
    assert await deployment.versions() == [2] * total
    assert (await rewrap(deployment.env, batch_rows=KEYS_EACH)).rewrapped == 0
    deployment.kek_file.write_text(new_line)
    assert await deployment.opened() == before


async def test_private_halves_of_signing_keys_are_sealed_anew_too(deployment: Deployment) -> None:
    tenant, rows = TENANTS[1], sample(TENANTS[1], 1)
    place = Place(signing_key_store.SEALED_COLUMN, tenant, rows["license.signing_key"]["signing_key_id"])
    sealed = await keyring.load(deployment.kek_file).wrap(b"private", place)
    async with deployment.db.connect() as admin:
        for name in ("license.product", "license.key_set", "license.signing_key"):
            await insert(admin, name, rows[name])
        await admin.execute(
            "UPDATE license.signing_key SET kek_version = $1, nonce = $2, ciphertext = $3",
            sealed.kek_version, sealed.nonce, sealed.ciphertext,
        )  # fmt: skip
        new_line = generate_line(2)
        deployment.kek_file.write_text(deployment.kek_file.read_text() + new_line)
        assert (await rewrap(deployment.env)).rewrapped == len(TENANTS) * KEYS_EACH + 1
        row = await admin.fetchrow("SELECT kek_version, nonce, ciphertext FROM license.signing_key")
    assert row is not None
    assert row["kek_version"] == 2
    deployment.kek_file.write_text(new_line)
    assert await keyring.load(deployment.kek_file).unwrap(keyring.Wrapped(*row), place) == b"private"


async def test_it_goes_on_where_it_was_stopped(deployment: Deployment) -> None:
    old_line, new_line = deployment.kek_file.read_text(), generate_line(2)
    deployment.kek_file.write_text(old_line + new_line)
    async with deployment.db.connect() as admin:
        await admin.execute(
            "UPDATE license.license_key SET kek_version = NULL, nonce = NULL, ciphertext = NULL WHERE account_id = 'acc_two'"
        )
        await rewrap(deployment.env, batch_rows=2)
        kek = keyring.load(deployment.kek_file)
        place = Place(key_store.SEALED_COLUMN, TENANTS[2], bytes((1, 2, 0)).hex())
        deployment.kek_file.write_text(old_line)
        late = await keyring.load(deployment.kek_file).wrap(b"LATE", place)
        await admin.execute(
            "UPDATE license.license_key SET kek_version = $2, nonce = $3, ciphertext = $4 WHERE key_hash = $1",
            bytes((1, 2, 0)), late.kek_version, late.nonce, late.ciphertext,
        )  # fmt: skip
    deployment.kek_file.write_text(old_line + new_line)
    assert (await rewrap(deployment.env)).rewrapped == 1
    assert kek.live_versions == (2, 1)
    assert "LATE" in await deployment.opened()


async def test_the_command_says_how_many_and_fails_where_keys_do_not_open(deployment: Deployment) -> None:
    async with deployment.db.connect() as admin:
        await admin.execute("UPDATE license.license_key SET nonce = ciphertext WHERE key_hash = $1", bytes((1, 0, 0)))
    deployment.kek_file.write_text(deployment.kek_file.read_text() + generate_line(2))
    paths = {"PYTHONPATH": f"{TREE}:{TREE / 'clients' / 'python'}", "PATH": os.environ["PATH"]}
    command = [sys.executable, "-m", "services.cli", "keys", "rewrap"]
    ran = subprocess.run(
        command, env={**paths, **deployment.env}, capture_output=True, text=True, check=False, timeout=60
    )
    total = len(TENANTS) * KEYS_EACH
    assert ran.returncode == 1, ran
    assert f"{total - 1} keys are sealed anew under version 2 of the KEK" in ran.stdout
    assert "1 do not open with this KEK file, and stay as they are" in ran.stderr
    assert await deployment.versions() == [1] + [2] * (total - 1)


async def test_a_version_that_is_gone_is_named(deployment: Deployment) -> None:
    deployment.kek_file.write_text(generate_line(2))
    done = await rewrap(deployment.env)
    assert (done.rewrapped, done.unopened) == (0, len(TENANTS) * KEYS_EACH)
    assert done.why == str(KekVersionError(1))
