"""What a snapshot sees is what Postgres says that it sees."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncpg
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.embedded.postgres import EmbeddedPostgres
from shared.freshness.snapshot import Snapshot
from tests.helpers.snapshots import HIGH, snapshots


@settings(max_examples=5, deadline=None)
@given(made=st.lists(snapshots(), min_size=20, max_size=40))
def test_postgres_says_the_same_of_what_a_snapshot_sees(postgres: EmbeddedPostgres, made: Sequence[Snapshot]) -> None:
    async def asked() -> list[list[int]]:
        conn = await asyncpg.connect(postgres.admin_dsn())
        try:
            rows = await conn.fetch(
                "SELECT ARRAY(SELECT x FROM generate_series(1, $2) AS x WHERE pg_visible_in_snapshot(x::text::xid8, "
                "s.text::pg_snapshot)) AS seen, s.text::pg_snapshot::text AS text "
                "FROM unnest($1::text[]) WITH ORDINALITY AS s (text, n) ORDER BY n",
                [str(one) for one in made], HIGH + 1,
            )  # fmt: skip
        finally:
            await conn.close()
        assert [Snapshot.parse(row["text"]) for row in rows] == made
        return [row["seen"] for row in rows]

    assert asyncio.run(asked()) == [[x for x in range(1, HIGH + 2) if one.sees(x)] for one in made]
