"""What is known of the keys of a product that everybody may verify with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from shared.db.pool import Database
from shared.facts.stamped import STAMP, stamp_of
from shared.freshness.memory import Fact
from shared.freshness.reader import Load, Reader, View

KEY_SET_BYTES: Final = 600
SIGNING_KEY_BYTES: Final = 900

KEY_SET_LOAD: Final = f"""
    SELECT {STAMP}, clock_timestamp() AS at, s.account_id, s.mode, s.product_id,
           (SELECT json_agg(json_build_array(k.signing_key_id, k.purpose, k.alg, k.status, k.public_jwk)
                            ORDER BY k.signing_key_id)::text
              FROM license.signing_keys_facts(s.account_id, s.mode, s.product_id) AS k) AS signing_keys
      FROM (SELECT) AS one LEFT JOIN LATERAL license.key_set_facts($1) AS s ON true
"""  # noqa: S608 - put together from constants


@dataclass(frozen=True, slots=True)
class KeySetValue:
    """Whose keys a key set has."""

    account_id: str
    mode: str
    product_id: str


@dataclass(frozen=True, slots=True)
class SigningKeysValue:
    """All keys of a product that there ever were: each its id, purpose, algorithm, status and public half, in their order."""

    keys: Sequence[tuple[str, str, str, str, Mapping[str, str]]]


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that is published."""

    signing_key_id: str
    alg: str
    jwk: Mapping[str, str]


class KeySets:
    """Reads key sets: from memory, beside it or the record."""

    def __init__(self, db: Database, reader: Reader) -> None:
        self._db = db
        self._reader = reader

    async def published(self, key_set_id: str) -> Sequence[PublicKey] | None:
        """The keys that are not revoked; None where there is no such set."""

        async def load() -> Load:
            return await load_key_set(self._db, key_set_id)

        found = await self._reader.read(f"key_set:{key_set_id}", lambda view: _published(view, key_set_id), load)
        return found[0]


async def load_key_set(db: Database, key_set_id: str) -> Load:
    """A key set and the keys in it."""
    rows = await db.load(KEY_SET_LOAD, key_set_id)
    return Load(stamp_of(rows[0]), rows[0]["at"], {fact.key: fact for fact in _facts(key_set_id, rows[0])})


def _facts(key_set_id: str, row: asyncpg.Record) -> Iterator[Fact]:
    if row["product_id"] is None:
        yield Fact(f"key_set:{key_set_id}", None, 0)
        return
    value = KeySetValue(row["account_id"], row["mode"], row["product_id"])
    yield Fact(f"key_set:{key_set_id}", value, KEY_SET_BYTES)
    keys = tuple(tuple(key) for key in json.loads(row["signing_keys"] or "[]"))
    yield Fact(_of_product(value), SigningKeysValue(keys), SIGNING_KEY_BYTES * (1 + len(keys)))


def _of_product(value: KeySetValue) -> str:
    return f"signing_keys:{value.account_id}/{value.mode}/{value.product_id}"


def _published(view: View, key_set_id: str) -> tuple[Sequence[PublicKey] | None] | None:
    """In a tuple, since None alone says that a fact is not known."""
    found = view.get(f"key_set:{key_set_id}")
    if found is None:
        return None
    if found.value is None:
        return (None,)
    assert isinstance(found.value, KeySetValue)
    keys = view.get(_of_product(found.value))
    if keys is None:
        return None
    assert isinstance(keys.value, SigningKeysValue)
    return ([PublicKey(kid, alg, jwk) for kid, _, alg, status, jwk in keys.value.keys if status != "REVOKED"],)
