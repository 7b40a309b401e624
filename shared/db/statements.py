"""The plain shapes of SQL over tenant tables, built once at import from constant names; values are always parameters."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

HOLD_IN_ORDER: Final = " ORDER BY 1 FOR KEY SHARE"
"""After a SELECT of many rows by `select`, the first column of which is the id: nobody can delete them until the
transaction ends. Two of these take them in the same order, and so never wait for each other."""


def insert(table: str, columns: Sequence[str]) -> str:
    """INSERT of one row: $1 account, $2 mode, then the columns in order."""
    places = ", ".join(f"${n}" for n in range(1, len(columns) + 3))
    return f"INSERT INTO {table} (account_id, mode, {', '.join(columns)}) VALUES ({places})"  # noqa: S608


def insert_many(table: str, columns: Sequence[str]) -> str:
    """INSERT of many rows: $1 account, $2 mode, $3 the rows, as `rows` writes them."""
    names = ", ".join(columns)
    return (
        f"INSERT INTO {table} (account_id, mode, {names}) "  # noqa: S608
        f"SELECT $1, $2, {names} FROM json_populate_recordset(NULL::{table}, $3::text::json)"
    )


def rows(columns: Sequence[str], values: Iterable[Sequence[object]]) -> str:
    """Rows for `insert_many`, each with the columns in order. Takes 10 us a row: many of them are work for a thread."""
    return json.dumps([dict(zip(columns, row, strict=True)) for row in values], default=_as_text)


def _as_text(value: object) -> str:
    """What Postgres reads a value from that JSON has no form for."""
    match value:
        case datetime():
            return value.isoformat()
        case timedelta():
            return f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"
        case bytes():
            return "\\x" + value.hex()
        case _:
            raise TypeError(f"no column takes a {type(value).__name__}")


def update(table: str, id_column: str, columns: Sequence[str]) -> str:
    """UPDATE of one row: $1 account, $2 mode, $3 id, then the columns in order."""
    pairs = ", ".join(f"{column} = ${n}" for n, column in enumerate(columns, start=4))
    return f"UPDATE {table} SET {pairs} WHERE account_id = $1 AND mode = $2 AND {id_column} = $3"  # noqa: S608


def select(table: str, columns: Sequence[str], *where: str) -> str:
    """SELECT inside the tenant: $1 account, $2 mode, and the given conditions, which begin at $3."""
    conditions = " AND ".join(("account_id = $1", "mode = $2", *where))
    return f"SELECT {', '.join(columns)} FROM {table} WHERE {conditions}"  # noqa: S608


def page(table: str, columns: Sequence[str], id_column: str, *filters: str) -> str:
    """One page in id order: $1 account, $2 mode, $3 the id to go on after, $4 how many; filters begin at $5."""
    return select(table, columns, f"{id_column} > $3", *filters) + f" ORDER BY {id_column} LIMIT $4"
