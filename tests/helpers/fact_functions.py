"""The functions that facts are read by, as the catalog has them, and the tables that they read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import asyncpg

from shared.tenancy import Mode, Tenant
from tests.helpers.record import Row, sample

Fact = tuple[str, str]
"""A kind and a key, as the log has them."""


MORE_OF_THE_KEY = {"workload": ["path"]}
"""Columns of the answer that tell several facts apart which one call of the function brings."""


@dataclass(frozen=True)
class FactFunction:
    """A function of one kind of fact. Its parameters are named after the columns that make the key, in order."""

    name: str
    kind: str
    key: tuple[str, ...]
    statement: str
    table: str
    reads: frozenset[str]

    def key_of(self, row: Row) -> Fact:
        return self.kind, "/".join(row[column] for column in self.key)


async def fact_functions(conn: asyncpg.Connection) -> list[FactFunction]:
    rows = await conn.fetch(
        "SELECT p.oid::regproc::text AS name, p.proname, p.proargnames[1:p.pronargs] AS names, "
        "array(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) AS t) AS types, d.refobjid::regclass::text AS tab, "
        "array_agg(a.attname) FILTER (WHERE a.attname IS NOT NULL) AS reads FROM pg_proc AS p "
        "JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_class'::regclass "
        "LEFT JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid AND a.attnum > 0 "
        "WHERE p.proname LIKE '%\\_facts' GROUP BY p.oid, d.refobjid"
    )
    found: list[FactFunction] = []
    for row in rows:
        is_list = [kind.endswith("[]") for kind in row["types"]]
        key = [name.removeprefix("p_") for name in row["names"]]
        key = [name.removesuffix("es") if many else name for name, many in zip(key, is_list, strict=True)]
        values = [f"ARRAY[${n}::text::bytea]" if many else f"${n}::text" for n, many in enumerate(is_list, start=1)]
        statement = f"SELECT to_jsonb(f)::text FROM {row['name']}({', '.join(values)}) AS f ORDER BY 1"
        kind = row["proname"].removesuffix("_facts")
        key += MORE_OF_THE_KEY.get(kind, [])
        found.append(FactFunction(row["name"], kind, tuple(key), statement, row["tab"], frozenset(row["reads"])))
    return found


async def watched(conn: asyncpg.Connection) -> dict[str, FactFunction]:
    """The tables that fact functions read, each with the one function that reads it."""
    functions = await fact_functions(conn)
    tables = {function.table: function for function in functions}
    assert len(tables) == len(functions) >= 7, "facts of more than one table, or of one twice: extend this test"
    assert set(tables) <= set(sample(Tenant("acc_one", Mode.TEST), 0)), "tests.helpers.record.sample lacks a table"
    return tables


async def update(conn: asyncpg.Connection, table: str, column: str, value: Any) -> None:
    """Sets a column, given as a JSON value, in every row."""
    await conn.execute(
        f"UPDATE {table} SET {column} = (jsonb_populate_record(NULL::{table}, $1)).{column}",
        json.dumps({column: value}),
    )
