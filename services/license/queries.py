"""Reads of what happened to a license."""

from __future__ import annotations

from collections.abc import Sequence

from services.license import event_store, file_store, store
from services.license.event_store import EventFilter, StoredEvent
from services.license.file_model import FileStatus, LicenseFile
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.ids import Prefix


async def events_of_a_license(tx: Transaction, wanted: EventFilter, after: str, limit: int) -> Sequence[StoredEvent]:
    """What happened to a license, from the number after `after` on. LICENSE_NOT_FOUND where there never was one.

    A license that was deleted has its events still; the ids of other things, which have events too, are no license's.
    """
    if not wanted.subject.startswith(f"{Prefix.LICENSE.value}_") or not await event_store.is_known(tx, wanted.subject):
        raise not_found(Reason.LICENSE_NOT_FOUND, wanted.subject)
    return await event_store.page(tx, wanted, int(after or 0), limit)


async def files_of_a_license(
    tx: Transaction, license_id: str, after: str, limit: int
) -> Sequence[tuple[LicenseFile, FileStatus]]:
    """The files that were issued, from the number after `after` on, each with what became of it. LICENSE_NOT_FOUND."""
    found = await store.get_license(tx, license_id)
    if found is None:
        raise not_found(Reason.LICENSE_NOT_FOUND, license_id)
    files = await file_store.page(tx, license_id, int(after or 0), limit)
    newest, keys = await file_store.newest_seq(tx, license_id), await file_store.keys_of(tx, files)
    status = found.status_at(tx.now)
    return [(file, file.status_at(tx.now, newest, keys.get(file.signing_key_id), status)) for file in files]
