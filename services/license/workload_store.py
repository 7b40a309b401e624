"""Every SQL statement on workload bindings. Operators' transactions read them; they are written inside their tenant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import asyncpg

from services.license.workload_model import WorkloadBinding
from shared.db import statements
from shared.db.pool import Transaction
from shared.rules.spiffe import SpiffeIdPattern
from shared.tenancy import Mode

_TABLE: Final = "license.workload_binding"
_WRITTEN: Final = (
    "workload_binding_id", "external_id", "display_name", "trust_domain", "path", "scopes", "revision", "created_at",
    "updated_at",
)  # fmt: skip
_READ: Final = ("account_id", "mode", *_WRITTEN)
_SELECT: Final = f"SELECT {', '.join(_READ)} FROM {_TABLE}"
_IN_ORDER: Final = "workload_binding_id > $1 ORDER BY workload_binding_id LIMIT $2"

INSERT: Final = statements.insert(_TABLE, _WRITTEN)
GET: Final = f"{_SELECT} WHERE workload_binding_id = $1"
GET_BY_EXTERNAL_ID: Final = f"{_SELECT} WHERE external_id = $1"
PAGE: Final = f"{_SELECT} WHERE {_IN_ORDER}"
PAGE_OF_AN_ACCOUNT: Final = f"{_SELECT} WHERE account_id = $3 AND {_IN_ORDER}"
LOCK: Final = statements.select(_TABLE, _READ, "workload_binding_id = $3") + " FOR UPDATE"
UPDATE: Final = statements.update(_TABLE, "workload_binding_id", ("display_name", "scopes", "revision", "updated_at"))
DELETE: Final = f"DELETE FROM {_TABLE} WHERE account_id = $1 AND mode = $2 AND workload_binding_id = $3"


def _binding(row: asyncpg.Record | None) -> WorkloadBinding | None:
    if row is None:
        return None
    values: dict[str, Any] = dict(row)
    values["mode"] = Mode(values["mode"])
    values["spiffe_id_pattern"] = SpiffeIdPattern(values.pop("trust_domain"), values.pop("path"))
    values["scopes"] = tuple(values["scopes"])
    return WorkloadBinding(**values)


async def insert(inside: Transaction, binding: WorkloadBinding) -> None:
    pattern = binding.spiffe_id_pattern
    await inside.conn.execute(
        INSERT, inside.tenant.account_id, inside.tenant.mode.value, binding.workload_binding_id, binding.external_id,
        binding.display_name, pattern.trust_domain, pattern.path, list(binding.scopes), binding.revision,
        binding.created_at, binding.updated_at,
    )  # fmt: skip


async def get(tx: Transaction, workload_binding_id: str) -> WorkloadBinding | None:
    return _binding(await tx.conn.fetchrow(GET, workload_binding_id))


async def get_by_external_id(tx: Transaction, external_id: str) -> WorkloadBinding | None:
    return _binding(await tx.conn.fetchrow(GET_BY_EXTERNAL_ID, external_id))


async def page(tx: Transaction, after: str, limit: int, account_id: str) -> Sequence[WorkloadBinding]:
    """A page of an account's, or of all where `account_id` is empty."""
    if account_id:
        rows = await tx.conn.fetch(PAGE_OF_AN_ACCOUNT, after, limit, account_id)
    else:
        rows = await tx.conn.fetch(PAGE, after, limit)
    return [found for row in rows if (found := _binding(row)) is not None]


async def lock(tx: Transaction, workload_binding_id: str) -> tuple[Transaction, WorkloadBinding] | None:
    """The operator's transaction inside the binding's tenant, and the binding, locked there."""
    seen = await get(tx, workload_binding_id)
    if seen is None:
        return None
    inside = await tx.enter(seen.tenant)
    row = await inside.conn.fetchrow(LOCK, seen.account_id, seen.mode.value, workload_binding_id)
    found = _binding(row)  # None where another transaction has deleted it meanwhile
    return None if found is None else (inside, found)


async def update(inside: Transaction, binding: WorkloadBinding) -> None:
    await inside.conn.execute(
        UPDATE, inside.tenant.account_id, inside.tenant.mode.value, binding.workload_binding_id, binding.display_name,
        list(binding.scopes), binding.revision, binding.updated_at,
    )  # fmt: skip


async def delete(inside: Transaction, workload_binding_id: str) -> None:
    await inside.conn.execute(DELETE, inside.tenant.account_id, inside.tenant.mode.value, workload_binding_id)
