"""Every SQL statement on the license files that were issued."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from services.license.file_model import LicenseFile
from services.license.signing_key_model import KeyStatus
from shared.db import statements
from shared.db.pool import Transaction

_TABLE: Final = "license.license_file"
_COLUMNS: Final = (
    "license_file_id", "license_id", "seq", "signing_key_id", "issued_at", "not_before", "expires_at", "encrypted", "bound",
)  # fmt: skip

INSERT: Final = statements.insert(_TABLE, _COLUMNS)
NEWEST: Final = statements.select(_TABLE, ("seq",), "license_id = $3") + " ORDER BY seq DESC LIMIT 1"
PAGE: Final = statements.select(_TABLE, _COLUMNS, "license_id = $3", "seq > $4") + " ORDER BY seq LIMIT $5"
KEYS: Final = statements.select("license.signing_key", ("signing_key_id", "status"), "signing_key_id = ANY ($3)")


def _in_tenant(tx: Transaction, *values: object) -> tuple[object, ...]:
    return (tx.tenant.account_id, tx.tenant.mode.value, *values)


async def newest_seq(tx: Transaction, license_id: str) -> int:
    """The number of the last file of a license; 0 where it has had none."""
    return await tx.conn.fetchval(NEWEST, *_in_tenant(tx, license_id)) or 0


async def insert(tx: Transaction, file: LicenseFile) -> None:
    await tx.conn.execute(
        INSERT,
        *_in_tenant(
            tx, file.license_file_id, file.license_id, file.seq, file.signing_key_id, file.issued_at, file.not_before,
            file.expires_at, file.encrypted, file.bound,
        ),
    )  # fmt: skip


async def page(tx: Transaction, license_id: str, after: int, limit: int) -> Sequence[LicenseFile]:
    """In the order of their numbers."""
    rows = await tx.conn.fetch(PAGE, *_in_tenant(tx, license_id, after, limit))
    return [LicenseFile(**row) for row in rows]


async def keys_of(tx: Transaction, files: Sequence[LicenseFile]) -> dict[str, KeyStatus]:
    """The states of the keys that files are signed with, by their ids; those that are gone are not there."""
    rows = await tx.conn.fetch(KEYS, *_in_tenant(tx, sorted({file.signing_key_id for file in files})))
    return {row["signing_key_id"]: KeyStatus(row["status"]) for row in rows}
