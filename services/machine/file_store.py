"""Every SQL statement on the machine files that were issued."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shared.db import statements
from shared.db.pool import Transaction

_TABLE: Final = "machine.machine_file"
_COLUMNS: Final = (
    "machine_id", "seq", "machine_file_id", "signing_key_id", "issued_at", "not_before", "expires_at", "encrypted",
)  # fmt: skip

INSERT: Final = statements.insert(_TABLE, _COLUMNS)
NEWEST: Final = statements.select(_TABLE, ("seq",), "machine_id = $3") + " ORDER BY seq DESC LIMIT 1"


@dataclass(frozen=True, slots=True)
class MachineFile:
    """A machine file that was issued; the file itself is kept nowhere."""

    machine_id: str
    seq: int
    machine_file_id: str
    signing_key_id: str
    issued_at: datetime
    not_before: datetime
    expires_at: datetime
    encrypted: bool


def _in_tenant(tx: Transaction, *values: object) -> tuple[object, ...]:
    return (tx.tenant.account_id, tx.tenant.mode.value, *values)


async def newest_seq(tx: Transaction, machine_id: str) -> int:
    """The number of the last file of a machine; 0 where it has had none."""
    return await tx.conn.fetchval(NEWEST, *_in_tenant(tx, machine_id)) or 0


async def insert(tx: Transaction, file: MachineFile) -> None:
    await tx.conn.execute(INSERT, *_in_tenant(tx, *(getattr(file, column) for column in _COLUMNS)))
