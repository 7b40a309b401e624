"""Licenses by the thousand, straight in Postgres: a million through the API would take longer than what they are for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from services.license import keys
from shared.crypto.hashing import SecretHasher
from shared.ids import Prefix, new_id

_STAGE: Final = "CREATE TEMP TABLE stage (license_id text, key_hash bytea, key_hint text) ON COMMIT DROP"
_COLUMNS: Final = """
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
     WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND NOT attname = ANY ($2)
"""
_ALWAYS: Final = """
    SELECT format('ALTER TABLE %s %%s TRIGGER %I', tgrelid::regclass, tgname) FROM pg_trigger
     WHERE tgrelid IN ('license.license'::regclass, 'license.license_key'::regclass) AND tgenabled = 'A'
"""


@dataclass(frozen=True, slots=True)
class Issued:
    """A license that can be asked for."""

    license_id: str
    key: str


async def populate(
    admin: asyncpg.Connection, template: str, hasher: SecretHasher, count: int, named: Sequence[str] = ()
) -> list[Issued]:
    """Makes `count` licenses like the one with the id `template`, each with a key of its own, with the ids `named` if any are.
    `admin` is a superuser's.

    They are what licenses of an import are, but for their events, and nothing is logged of them: whoever serves from this
    record must not have asked for them before.
    """
    ids = named or [new_id(Prefix.LICENSE) for _ in range(count)]
    made = [Issued(license_id, keys.generate("BENCH")) for license_id in ids]

    def rows() -> Iterator[tuple[str, bytes, str]]:
        return ((one.license_id, hasher.hash(keys.canonical(one.key)), keys.hint(one.key)) for one in made)

    async with admin.transaction():
        triggers = [row[0] for row in await admin.fetch(_ALWAYS)]
        await admin.execute(
            "SET LOCAL session_replication_role = replica"
        )  # no checks of what is the template's anyway
        for trigger in triggers:
            await admin.execute(trigger % "DISABLE")
        await admin.execute(_STAGE)
        await admin.copy_records_to_table("stage", records=await asyncio.to_thread(lambda: list(rows())))
        for table, own in (
            ("license.license", ["license_id", "key_hint"]),
            ("license.license_key", ["license_id", "key_hash"]),
        ):
            others = await admin.fetchval(_COLUMNS, table, [*own, "external_id", "kek_version", "nonce", "ciphertext"])
            names = ", ".join(own)
            await admin.execute(
                f"INSERT INTO {table} ({names}, {others}) SELECT {', '.join('s.' + name for name in own)}, {others} "
                f"FROM stage AS s, (SELECT {others} FROM {table} WHERE license_id = $1) AS template",
                template,
            )
        for trigger in triggers:
            await admin.execute(trigger % "ENABLE ALWAYS")
    await admin.execute("ANALYZE")  # as autovacuum does, within the minute after such a rush
    return made
