"""Machines of licenses, put into the record as an activation would."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import uuid4

import asyncpg
from lictor.license.v1.license_service_pb2 import License

from shared.crypto import root_secret
from shared.crypto.fingerprints import PLAIN, WORKLOAD, FingerprintHasher
from shared.tenancy import Tenant
from tests.helpers.builders import ago
from tests.helpers.lease import lease_passes
from tests.helpers.suite import Suite


def hasher_of(suite: Suite) -> FingerprintHasher:
    return FingerprintHasher(root_secret.load(suite.settings.root_secret_file))


async def _insert(conn: asyncpg.Connection, table: str, more: str = "", **columns: Any) -> None:
    names, values = ", ".join(columns), ", ".join(f"${n}" for n in range(1, len(columns) + 1))
    await conn.execute(f"INSERT INTO {table} ({names}) VALUES ({values}) {more}", *columns.values())


async def add_machine(
    suite: Suite,
    tenant: Tenant,
    license_: License,
    shown: str | Mapping[str, str],
    *,
    components: Mapping[str, str] | None = None,
    last_heartbeat_at: datetime | None = None,
    lease_expires_at: datetime | None = None,
    is_workload: bool = False,
    **columns: Any,
) -> str:
    """A machine with a seat, known by one fingerprint or several; its id. `columns` are of machine.machine."""
    hasher, machine_id = hasher_of(suite), f"mach_{uuid4().hex}"
    if isinstance(shown, str):
        prints = {PLAIN: hasher.hash(tenant, shown, WORKLOAD if is_workload else PLAIN)}
    else:
        prints = {name: hasher.hash(tenant, value, name) for name, value in shown.items()}
    own: dict[str, Any] = {"account_id": tenant.account_id, "mode": tenant.mode.value}
    row: dict[str, Any] = {
        "license_id": license_.license_id, "product_id": license_.product_id, "policy_id": license_.policy_id,
        "identity_kind": "FINGERPRINT", "identity_hash": uuid4().bytes, "uniqueness_scope": license_.license_id,
        "generation": 1, "display_name": "", "hostname": "", "platform": "", "ip": "", "heartbeat_status": "NOT_STARTED",
        "activated_at": ago(hours=1), "labels": {}, "metadata": {}, "updated_at": ago(hours=1),
    }  # fmt: skip
    async with suite.admin() as conn, conn.transaction():
        await _insert(conn, "machine.seat", "ON CONFLICT DO NOTHING", **own, license_id=license_.license_id)
        await _insert(conn, "machine.machine", **own, machine_id=machine_id, **(row | columns))
        of_it: dict[str, Any] = {**own, "machine_id": machine_id}
        for name, hashed in prints.items():
            await _insert(
                conn, "machine.fingerprint", **of_it, name=name, license_id=license_.license_id,
                uniqueness_scope=license_.license_id, fingerprint_hash=hashed,
            )  # fmt: skip
        for name, value in (components or {}).items():
            hashed = hasher.hash(tenant, value, name)
            await _insert(
                conn, "machine.component", **of_it, name=name, uniqueness_scope=machine_id, fingerprint_hash=hashed
            )
        await _insert(
            conn, "machine.beat", **of_it, last_heartbeat_at=last_heartbeat_at, lease_expires_at=lease_expires_at
        )
    await lease_passes()
    return machine_id


async def change(suite: Suite, table: str, column: str, value: str, **columns: Any) -> None:
    """Changes what no call can change yet, in the rows that have `value`, and waits until all know."""
    pairs = ", ".join(f"{name} = ${n}" for n, name in enumerate(columns, start=2))
    async with suite.admin() as conn:
        await conn.execute(f"UPDATE {table} SET {pairs} WHERE {column} = $1", value, *columns.values())
    await lease_passes()


async def deactivate(suite: Suite, machine_id: str) -> None:
    """As a deactivation does it."""
    async with suite.admin() as conn, conn.transaction():
        await conn.execute("DELETE FROM machine.fingerprint WHERE machine_id = $1", machine_id)
        await conn.execute("DELETE FROM machine.component WHERE machine_id = $1", machine_id)
        await conn.execute(
            "UPDATE machine.machine SET deactivated_at = now(), deactivation_reason = 'ADMIN' WHERE machine_id = $1",
            machine_id,
        )
    await lease_passes()
