"""`lictor config check`: the settings of a serving process, looked at without connecting anywhere."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from pydantic import SecretStr, ValidationError

from services.findings import Finding, Level, fail, report, warn
from services.license.settings import Settings as LicenseSettings
from services.machine.settings import Settings as MachineSettings
from services.main import SETTINGS, read_target
from services.tls import checked_tls, open_addresses
from shared.crypto import keyring, root_secret
from shared.crypto.private_files import SecretFileError, open_to_others
from shared.db.pool import read_passwords
from shared.freshness.redis_line import RedisUrlError, connection_to
from shared.freshness.redis_tier import read_password
from shared.rpc.addresses import split_address
from shared.rpc.envoy.program import obstacle
from shared.rpc.tls import load
from shared.settings import OTHER_VARIABLES, PREFIX, ProcessSettings, SettingsError, Target, Transport

CERTIFICATE_SOON: Final = timedelta(days=21)
_PASSWORD: Final = re.compile(r"(://[^/:]*:)[^/]*(@)|((?:^|[?&\s])(?:password|sslpassword)=)[^&\s]*", re.IGNORECASE)


def check(*, as_json: bool = False) -> int:
    """Prints the effective settings and what is wrong with them; 1 when a process would not start, or not serve."""
    findings, settings = look()
    if settings is not None and not as_json:
        sys.stdout.writelines(f"{line}\n" for line in shown(settings))
    return report(findings, as_json=as_json)


def look() -> tuple[list[Finding], ProcessSettings | None]:
    """All findings; and the settings, unless they cannot be read."""
    findings = list(_unknown())
    target: Target | None = None
    try:
        target = read_target()
    except SettingsError as error:
        findings.append(fail("LICTOR_TARGET", "bad", str(error)))
    try:
        # What all targets read is checked even where nobody knows which this is.
        settings = SETTINGS[target or Target.ENTITLEMENT]()  # pyright: ignore[reportCallIssue] - from the environment
    except ValidationError as error:
        for bad in error.errors():
            name = PREFIX + "_".join(str(part) for part in bad["loc"]).upper()
            findings.append(fail(name, "bad" if name in os.environ else "not set", bad["msg"]))
        return findings, None
    findings += _read_together(settings)
    if not any(finding.level is Level.FAIL for finding in findings):
        findings.insert(0, Finding("settings", f"good for target {target}"))
    return findings, settings


def known_names() -> set[str]:
    """Every variable that something reads."""
    return {PREFIX + name.upper() for kind in SETTINGS.values() for name in kind.model_fields} | OTHER_VARIABLES


def _unknown() -> Iterator[Finding]:
    names = sorted(known_names())
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in names:
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
            yield fail(name, "nothing reads it", f"did you mean {near[0]}?" if near else "unset it")


def _read_together(settings: ProcessSettings) -> Iterator[Finding]:
    """What each value alone does not tell."""
    yield from _addresses(settings)
    yield from _transport(settings)
    yield from tls(settings)
    yield from secrets(settings)
    if isinstance(settings, LicenseSettings):
        yield from redis(settings)
    if isinstance(settings, MachineSettings):
        yield from _authorities(settings)
    dsn = settings.postgres_dsn.get_secret_value()
    if _PASSWORD.search(dsn):
        words = "leave user and password out, since each pool connects as its own role: LICTOR_POSTGRES_PASSWORD_FILE"
        yield warn("LICTOR_POSTGRES_DSN", "holds a password, which others on this machine may see", words)
    if "LICTOR_POSTGRES_ADMIN_DSN" in os.environ:
        words = "give it to `lictor migrate` alone"
        yield warn("LICTOR_POSTGRES_ADMIN_DSN", "set: a serving process should not have it", words)


def _addresses(settings: ProcessSettings) -> Iterator[Finding]:
    taken: dict[tuple[str, int], str] = {}
    for field, address in listeners(settings):
        try:
            host, port = split_address(address)
        except ValueError as error:
            yield fail(_name(field), str(error), "write it as host:port, 127.0.0.1:7420 or [::1]:7420")
            continue
        if port > 65535:
            yield fail(_name(field), f"there is no port {port}", "take one up to 65535")
        elif port and (other := taken.setdefault((host, port), field)) != field:
            yield fail(_name(field), f"{address} is also {_name(other)}", "give each listener a port of its own")


def _authorities(settings: MachineSettings) -> Iterator[Finding]:
    try:
        _ = settings.license_ca_file is None or settings.license_ca_file.read_bytes()
    except OSError as error:
        yield fail(_name("license_ca_file"), "refused", str(error))


def listeners(settings: ProcessSettings) -> Iterator[tuple[str, str]]:
    """The addresses that a process listens on, each with its field."""
    for field in ("api_addr", "json_addr", "ops_addr", "ops_grpc_addr"):
        address: str | None = getattr(settings, field)
        if address is not None:
            yield field, address


def _transport(settings: ProcessSettings) -> Iterator[Finding]:
    why_not = None if settings.transport is Transport.GRPCIO else obstacle()
    if settings.transport is Transport.ENVOY and why_not is not None:
        yield fail("LICTOR_TRANSPORT", f"envoy cannot be: {why_not}", "mend that, or take grpcio")
    if settings.transport is Transport.ENVOY or (settings.transport is Transport.AUTO and why_not is None):
        return
    how = "grpcio" if settings.transport is Transport.GRPCIO else f"auto, which takes grpcio here ({why_not})"
    for field, is_set in (
        ("json_addr", settings.json_addr is not None),
        ("trusted_proxies", settings.trusted_proxies > 0),
    ):
        if is_set:
            yield fail(_name(field), f"set, but LICTOR_TRANSPORT is {how}", "take the transport envoy, or unset it")


def tls(settings: ProcessSettings) -> Iterator[Finding]:
    """The certificate and its key: readable, matching, the key its owner's alone, not ending soon."""
    try:
        files = checked_tls(settings)
    except SettingsError as error:
        yield fail("TLS", "refused", str(error))
        return
    if files is None:
        others = _tried(lambda: open_addresses(settings))
        if others:
            words = "set LICTOR_TLS_CERT_FILE and LICTOR_TLS_KEY_FILE, unless a mesh encrypts"
            yield warn("TLS", f"none, and others may reach {', '.join(others)}: callers speak plain text", words)
        else:
            yield Finding("TLS", "none, on this machine: callers speak plain text")
        return
    left = load(files).expires - datetime.now(UTC)
    renew = "renew the file of LICTOR_TLS_CERT_FILE; it is taken up without a restart"
    if left <= timedelta(0):
        yield fail("TLS", f"the certificate ended {(-left).days} days ago", renew)
        return
    said = f"the certificate has {left.days} days and {left.seconds // 3600} hours left"
    yield Finding("TLS", said) if left > CERTIFICATE_SOON else warn("TLS", said, renew)


def secrets(settings: ProcessSettings) -> Iterator[Finding]:
    """The files with secrets: there, well-formed, nobody else's to read."""
    yield _file("root secret", lambda: f"versions {root_secret.load(settings.root_secret_file).live_versions}")
    if isinstance(settings, LicenseSettings):
        path = settings.kek_file
        if path is None:
            words = "none: products that keep their license keys are refused; set LICTOR_KEK_FILE to have them"
            yield Finding("KEK", words)
        else:
            yield _file("KEK", lambda: f"versions {keyring.load(path).live_versions}")
    if settings.postgres_password_file is not None:
        yield _passwords(settings.postgres_password_file)


def redis(settings: LicenseSettings) -> Iterator[Finding]:
    """The address, as the driver reads it, and the file of its password."""
    if settings.redis_url is None:
        return
    try:
        connection_to(settings.redis_url.get_secret_value(), None, 0)
    except RedisUrlError as error:
        yield fail("LICTOR_REDIS_URL", "refused", str(error))
    if settings.redis_password_file is not None:
        yield _password(settings.redis_password_file)


def _password(path: Path) -> Finding:
    try:
        read_password(path)
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        return fail("LICTOR_REDIS_PASSWORD_FILE", "refused", str(error))
    if open_to_others(mode):
        return warn("LICTOR_REDIS_PASSWORD_FILE", f"{path} is open to others", "chmod 600 it")
    return Finding("LICTOR_REDIS_PASSWORD_FILE", "one line")


def _passwords(path: Path) -> Finding:
    try:
        roles = len(read_passwords(path))
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        return fail("passwords", "refused", str(error))
    if open_to_others(mode):
        return warn("passwords", f"{path} is open to others", "chmod 600 it")
    return Finding("passwords", f"of {roles} roles")


def _file(subject: str, look_: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, look_())
    except SecretFileError as error:
        return fail(subject, "refused", str(error))


def _tried(find: Callable[[], list[str]]) -> list[str]:
    try:
        return find()
    except ValueError:
        return []  # an address that is none, which is a finding of its own


def shown(settings: ProcessSettings) -> Iterator[str]:
    """A line for each setting: its name, its value without secrets, and whether it was set."""
    yield f"LICTOR_TARGET={os.environ.get('LICTOR_TARGET', '')}"
    for field in sorted(type(settings).model_fields):
        value: object = getattr(settings, field)
        if isinstance(value, SecretStr):
            value = _PASSWORD.sub(lambda m: f"{m[1]}***{m[2]}" if m[1] else f"{m[3]}***", value.get_secret_value())
        text = "" if value is None else str(value)
        default = "" if _name(field) in os.environ else "  (default)"
        yield f"{_name(field)}={text}{default}"


def _name(field: str) -> str:
    return PREFIX + field.upper()
