"""The loads of credentials' facts: what is known of a key, session or workload, and of the account behind it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Final

import asyncpg

from shared.db.pool import Database
from shared.facts.credential_values import (
    CREDENTIAL_BYTES,
    AccountValue,
    ApiKeyValue,
    BindingValue,
    OperatorKeyValue,
    SessionValue,
)
from shared.facts.license import SHARED_BYTES, CustomerValue
from shared.facts.stamped import STAMP, stamp_of
from shared.freshness.memory import Fact
from shared.freshness.reader import Load
from shared.rules.spiffe import SpiffeId

_SELECT: Final = f"SELECT {STAMP}, clock_timestamp() AS at, "
_ACCOUNT: Final = " LEFT JOIN LATERAL license.account_facts(k.account_id) AS a ON true"
API_KEY_LOAD: Final = (
    _SELECT
    + "k.key_hash, k.account_id, k.mode, k.kind, k.api_key_id, k.scopes, k.expires_at, k.revoked, a.status, a.limits"
    + " FROM (SELECT) AS one LEFT JOIN LATERAL license.api_key_facts($1) AS k ON true"
    + _ACCOUNT
)
OPERATOR_KEY_LOAD: Final = (
    _SELECT
    + "k.key_hash, k.operator_key_id, k.revoked"
    + " FROM (SELECT) AS one LEFT JOIN LATERAL license.operator_key_facts($1) AS k ON true"
)
CUSTOMER_SESSION_LOAD: Final = (
    _SELECT
    + "k.token_hash AS key_hash, k.account_id, k.mode, k.customer_session_id, k.customer_id, k.expires_at, a.status, a.limits,"
    + " c.subject_ref AS customer_subject_ref, c.email_hash AS customer_email_hash, c.banned AS customer_banned"
    + " FROM (SELECT) AS one LEFT JOIN LATERAL license.customer_session_facts($1) AS k ON true"
    + _ACCOUNT
    + " LEFT JOIN LATERAL license.customer_facts(k.account_id, k.mode, k.customer_id) AS c ON true"
)
# The paths in the parameter are those of the patterns that cover the caller's. The function's own column has the
# database's collation, with which no index on the table's would serve.
WORKLOAD_LOAD: Final = (
    _SELECT
    + "k.path, k.account_id, k.mode, k.workload_binding_id, k.scopes, a.status, a.limits"
    + ' FROM (SELECT) AS one LEFT JOIN LATERAL license.workload_facts($1) AS k ON k.path COLLATE "C" = ANY ($2)'
    + _ACCOUNT
)


Loading = Callable[[], Awaitable[Load]]


async def load_api_key(db: Database, hashes: Sequence[bytes]) -> Load:
    """An API key by the hashes that it may have, and its account."""
    rows = await db.load(API_KEY_LOAD, hashes)
    return _load(rows, _keyed("api_key", hashes, rows, _api_key))


async def load_operator_key(db: Database, hashes: Sequence[bytes]) -> Load:
    """An operator's key."""
    rows = await db.load(OPERATOR_KEY_LOAD, hashes)
    return _load(rows, _keyed("operator_key", hashes, rows, _operator_key))


async def load_session(db: Database, hashes: Sequence[bytes]) -> Load:
    """A customer session, its account and customer."""
    rows = await db.load(CUSTOMER_SESSION_LOAD, hashes)
    return _load(rows, _keyed("customer_session", hashes, rows, _session))


async def load_workload(db: Database, spiffe_id: SpiffeId) -> Load:
    """The bindings that cover a workload, and their accounts."""
    paths = spiffe_id.covering_paths()
    rows = await db.load(WORKLOAD_LOAD, spiffe_id.trust_domain, list(paths))
    return _load(rows, _bindings(spiffe_id.trust_domain, paths, rows))


def credential_key(kind: str, key_hash: bytes) -> str:
    """The key of the fact of a credential that is looked up by its hash."""
    return f"{kind}:\\x{key_hash.hex()}"


def binding_key(trust_domain: str, path: str) -> str:
    """The key of the fact of a binding's pattern."""
    return f"workload:{trust_domain}/{path}"


def _load(rows: Sequence[asyncpg.Record], facts: Iterable[Fact]) -> Load:
    return Load(stamp_of(rows[0]), rows[0]["at"], {fact.key: fact for fact in facts})


def _keyed(
    kind: str,
    hashes: Sequence[bytes],
    rows: Sequence[asyncpg.Record],
    facts_of: Callable[[asyncpg.Record], Iterator[Fact]],
) -> Iterator[Fact]:
    found = {row["key_hash"]: row for row in rows}
    for key_hash in hashes:
        row = found.get(key_hash)
        if row is None:
            yield Fact(credential_key(kind, key_hash), None, 0)
        else:
            yield from facts_of(row)


def _api_key(row: asyncpg.Record) -> Iterator[Fact]:
    value = ApiKeyValue(
        row["account_id"], row["mode"], row["kind"], row["api_key_id"], row["scopes"], row["expires_at"], row["revoked"]
    )
    yield Fact(credential_key("api_key", row["key_hash"]), value, CREDENTIAL_BYTES)
    yield _account(row)


def _operator_key(row: asyncpg.Record) -> Iterator[Fact]:
    value = OperatorKeyValue(row["operator_key_id"], row["revoked"])
    yield Fact(credential_key("operator_key", row["key_hash"]), value, CREDENTIAL_BYTES)


def _session(row: asyncpg.Record) -> Iterator[Fact]:
    value = SessionValue(
        row["account_id"], row["mode"], row["customer_session_id"], row["customer_id"], row["expires_at"]
    )
    yield Fact(credential_key("customer_session", row["key_hash"]), value, CREDENTIAL_BYTES)
    yield _account(row)
    customer = CustomerValue(row["customer_subject_ref"], row["customer_email_hash"], row["customer_banned"])
    yield Fact(f"customer:{row['account_id']}/{row['mode']}/{row['customer_id']}", customer, SHARED_BYTES)


def _bindings(trust_domain: str, paths: Sequence[str], rows: Sequence[asyncpg.Record]) -> Iterator[Fact]:
    found = {row["path"]: row for row in rows}
    for path in paths:
        row = found.get(path)
        if row is None:
            yield Fact(binding_key(trust_domain, path), None, 0)
            continue
        value = BindingValue(row["account_id"], row["mode"], row["workload_binding_id"], row["scopes"])
        yield Fact(binding_key(trust_domain, path), value, CREDENTIAL_BYTES)
        yield _account(row)


def _account(row: asyncpg.Record) -> Fact:
    return Fact(f"account:{row['account_id']}", AccountValue(row["status"], row["limits"]), CREDENTIAL_BYTES)
