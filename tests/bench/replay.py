"""The statements of one call, as Postgres was sent them, and the script with which pgbench sends them again and again.

They are taken from Postgres's own log, so that they are those of the call, whatever it is made of by then.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from tests.bench.load import NotRunError
from tests.helpers.serving import until

LOGGED_WITHIN_S: Final = 10.0
_MARK: Final = "replayed"
_LINE: Final = re.compile(rf"{_MARK}\|(?P<name>[^|]*)\|(?P<pid>\d+)\|(?P<kind>[A-Z]+):  (?P<text>.*)", re.DOTALL)
_EXECUTED: Final = re.compile(r"(?:statement|execute [^:]*): (?P<sql>.*)", re.DOTALL)
_VALUE: Final = re.compile(r"\$(\d+) = (NULL|'(?:[^']|'')*')", re.DOTALL)
_PLACE: Final = re.compile(r"\$(\d+)")
VARYING: Final = re.compile(r"(?<=lic_|evt_)[0-9a-f]{32}|(?<=mach_)[0-9a-f]{32}|(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
"""What is another in each call: ids, and hashes. Their last digits are replaced by a number."""
DIGITS: Final = 12
FIRST_NUMBER: Final = 10 ** (DIGITS - 1)
"""So that each number has as many digits."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement and its parameters, as texts; None stands for NULL."""

    sql: str
    values: Mapping[int, str | None]


@asynccontextmanager
async def _logged(admin: asyncpg.Connection) -> AsyncGenerator[None]:
    """Everything that is sent is logged while the block runs."""
    settings = {"log_statement": "'all'", "log_line_prefix": f"'{_MARK}|%a|%p|'"}
    for name, value in settings.items():
        await admin.execute(f"ALTER SYSTEM SET {name} = {value}")
    await admin.execute("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        for name in settings:
            await admin.execute(f"ALTER SYSTEM RESET {name}")
        await admin.execute("SELECT pg_reload_conf()")


async def traced(
    admin: asyncpg.Connection, log: Path, role: str, has: str, call: Callable[[], Awaitable[None]]
) -> list[Statement]:
    """The statements of the transaction of `role` that `call` makes, from BEGIN to COMMIT: the one in which there is `has`. It is
    made until the log has it, for connections learn by and by what is to be logged. NotRunError when it never has."""
    before = len(_read(log))
    found: list[Statement] = []

    async def seen() -> bool:
        await call()
        for one in transactions(_read(log)[before:], role):
            if any(has in statement.sql for statement in one):
                found[:] = one
        return bool(found)

    async with _logged(admin):
        try:
            await until(seen, LOGGED_WITHIN_S)
        except TimeoutError:
            raise NotRunError(f"Postgres logged no transaction of {role} with {has}") from None
    return found


def _read(log: Path) -> str:
    return log.read_text(errors="replace")


def transactions(text: str, role: str) -> list[list[Statement]]:
    """Those of a role in a log that were logged from their beginning to their end."""
    # A line that begins with a tab goes on with the one before.
    lines = text.replace("\n\t", "\0").splitlines()
    open_by: dict[str, list[Statement]] = {}
    whole: list[list[Statement]] = []
    for line in lines:
        told = _LINE.match(line.replace("\0", "\n"))
        if told is None or told["name"] != role:
            continue
        pid, said = told["pid"], told["text"]
        if told["kind"] == "DETAIL" and pid in open_by and open_by[pid]:
            values = {int(n): None if value == "NULL" else _unquoted(value) for n, value in _VALUE.findall(said)}
            open_by[pid][-1] = Statement(open_by[pid][-1].sql, values)
        executed = _EXECUTED.match(said) if told["kind"] == "LOG" else None
        if executed is None:
            continue
        sql = executed["sql"].strip().rstrip(";")
        if sql.startswith("BEGIN"):
            open_by[pid] = []
        if pid in open_by:
            open_by[pid].append(Statement(sql, {}))
            if sql == "COMMIT":
                whole.append(open_by.pop(pid))
            elif sql == "ROLLBACK":
                del open_by[pid]
    return whole


def _unquoted(value: str) -> str:
    return value[1:-1].replace("''", "'")


async def script(admin: asyncpg.Connection, statements: Sequence[Statement]) -> str:
    """What pgbench runs: the statements with their values, but for what varies, the last digits of which are the number of the
    transaction: FIRST_NUMBER, a million for each client, and its variable `n`, by one more each time."""
    lines = ["\\set n :n + 1", f"\\set id {FIRST_NUMBER} + :client_id * 1000000 + :n"]
    for one in statements:
        types: list[str] = []
        if one.values:
            prepared = await admin.prepare(one.sql)
            oids = [kind.oid for kind in prepared.get_parameters()]
            types = [await admin.fetchval("SELECT format_type($1, NULL)", oid) for oid in oids]
        values = {n: f"{expression(value)}::{types[n - 1]}" for n, value in one.values.items()}
        lines.append(_PLACE.sub(lambda place, values=values: values[int(place[1])], one.sql) + ";")
    return "\n".join(lines) + "\n"


def expression(value: str | None) -> str:
    """A value in SQL, with the number put in."""
    if value is None:
        return "NULL"
    parts: list[str] = []
    at = 0
    for varying in VARYING.finditer(value):
        parts += [_literal(value[at : varying.end() - DIGITS]), ":id::text"]
        at = varying.end()
    parts.append(_literal(value[at:]))
    return parts[0] if len(parts) == 1 else f"({' || '.join(parts)})"


def numbered(value: str, client: int, n: int) -> str:
    """What an id becomes in the transaction `n` of a client."""
    return f"{value[:-DIGITS]}{FIRST_NUMBER + client * 1_000_000 + n}"


def _literal(text: str) -> str:
    """Without a colon, after which pgbench would look for the name of a variable."""
    escaped = text.replace("\\", "\\\\").replace("'", "''").replace(":", "\\003A")
    return f"U&'{escaped}'"
