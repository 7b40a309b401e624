"""A license goes offline: a file that proves it for a while without a call."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from lictor._core.offline_format import FileKind

from services.license import file_store, store
from services.license.events import event_data
from services.license.file_model import LicenseFile
from services.license.file_signing import WantedFile, sign_file
from services.license.key_keeper import KeyKeeper
from services.license.signers import Signers
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.ids import Prefix, new_id


@dataclass(frozen=True, slots=True)
class NewFile:
    """What is remembered of a file, the file itself, and where the keys are that verify it."""

    file: LicenseFile
    text: str
    key_set_id: str


async def issue_license_file(
    tx: Transaction,
    signers: Signers,
    keeper: KeyKeeper,
    *,
    actor: str,
    license_id: str,
    ttl: timedelta | None,
    license_key: str,
    fingerprint: str,
    reason: str,
) -> NewFile:
    """LICENSE_NOT_FOUND, and what `sign_file` raises."""
    # Locked: files of a license are numbered one after the other, and none is signed beside what ends the license.
    found = await store.lock_license(tx, license_id)
    if found is None:
        raise not_found(Reason.LICENSE_NOT_FOUND, license_id)
    seq = await file_store.newest_seq(tx, license_id) + 1
    wanted = WantedFile(FileKind.LICENSE, new_id(Prefix.LICENSE_FILE), seq, ttl, license_key, fingerprint)
    issued = await sign_file(tx, signers, keeper, found, wanted, actor=actor)
    made = LicenseFile(
        wanted.file_id, license_id, seq, issued.signing_key_id, issued.at, issued.span.not_before,
        issued.span.expires_at, bool(license_key), bool(fingerprint),
    )  # fmt: skip
    await file_store.insert(tx, made)
    data = {
        **event_data(found, tx.now),
        "license_file_id": made.license_file_id,
        "file_seq": seq,
        "file_expires_at": made.expires_at.isoformat(),
        "signing_key_id": made.signing_key_id,
    }
    await emit(tx, Event("license.checked_out", license_id, data, actor, reason))
    return NewFile(made, issued.text, issued.key_set.key_set_id)
