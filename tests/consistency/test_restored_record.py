"""A record that is put back in place of another one: no process takes what it knows of the one for true of the other."""

from __future__ import annotations

from uuid import uuid4

import asyncpg

from shared.embedded.postgres import EmbeddedPostgres
from tests.consistency.stage import acting, process_on
from tests.helpers.record import scratch
from tests.helpers.serving import until


async def test_a_copy_in_place_of_the_record_is_another_epoch(postgres: EmbeddedPostgres) -> None:
    """On the same cluster, and with the epoch's row: a dump has it, and so has a copy of the files."""
    copy = f"scratch_{uuid4().hex}"
    async with scratch(postgres) as made:
        async with acting(made) as cast:
            await cast.run("UPDATE license.license SET status = 'suspended' WHERE account_id = $1")
        server = await asyncpg.connect(postgres.admin_dsn())
        await server.execute(f"CREATE DATABASE {copy} TEMPLATE {made.name}")
        async with process_on(made) as one:
            async with made.connect() as admin:
                await admin.execute("UPDATE license.license SET status = 'active'")
            await one.poll()
            await cast.status_by(one)
            assert cast.held_by(one) == "active"
            await server.execute(f"DROP DATABASE {made.name} WITH (FORCE)")
            await server.execute(f"ALTER DATABASE {copy} RENAME TO {made.name}")
            await until(one.tail.poll)
            assert cast.held_by(one) is None
        await server.close()


async def test_a_table_that_is_made_anew_is_another_epoch(postgres: EmbeddedPostgres) -> None:
    """As `pg_restore --clean` does, into the database that was there."""
    async with scratch(postgres) as made, acting(made) as cast, process_on(made) as one:
        await cast.learned_by(one)
        await cast.revoke_unlogged()
        async with cast.admin.transaction():
            await cast.admin.execute("CREATE TABLE record.kept AS SELECT epoch FROM record.epoch")
            await cast.admin.execute("DROP TABLE record.epoch")
            await cast.admin.execute(
                "CREATE UNLOGGED TABLE record.epoch (only_row boolean PRIMARY KEY DEFAULT true, epoch uuid NOT NULL)"
            )
            await cast.admin.execute("GRANT SELECT ON record.epoch TO lictor_facts")
            await cast.admin.execute("INSERT INTO record.epoch (epoch) SELECT epoch FROM record.kept")
        await one.poll()
        assert await cast.status_by(one) == "revoked"
