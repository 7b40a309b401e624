"""The plain shapes of SQL over tenant tables, built once at import from constant names; values are always parameters."""

from __future__ import annotations

from collections.abc import Sequence


def insert(table: str, columns: Sequence[str]) -> str:
    """INSERT of one row: $1 account, $2 mode, then the columns in order."""
    places = ", ".join(f"${n}" for n in range(1, len(columns) + 3))
    return f"INSERT INTO {table} (account_id, mode, {', '.join(columns)}) VALUES ({places})"  # noqa: S608


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
