"""Composes and signs a file of a license, for whoever issues it: this service, or another one for a machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lictor._core.offline_format import ISSUER, FileKind, FileSecret, fingerprint_mark, moment, write_file

from services.license import catalog_store, customer_store, tier_store
from services.license.customer_model import refuse_banned
from services.license.file_model import Span, payload_of_license, refuse_unless_allowed, span, times_written
from services.license.key_keeper import KeyKeeper
from services.license.model import License
from services.license.signers import Signers
from services.license.signing_key_model import KeySet
from shared.db.pool import Transaction
from shared.errors import FieldViolation, fields_invalid


@dataclass(frozen=True, slots=True)
class WantedFile:
    """A file that is asked for. Empty texts are what was not given; `machine` is what it says of a machine."""

    kind: FileKind
    file_id: str
    seq: int
    ttl: timedelta | None
    license_key: str
    fingerprint: str
    machine: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class IssuedFile:
    """A file, and what is remembered of it."""

    text: str
    signing_key_id: str
    key_set: KeySet
    span: Span
    at: datetime


async def sign_file(
    tx: Transaction, signers: Signers, keeper: KeyKeeper, license_: License, wanted: WantedFile, *, actor: str
) -> IssuedFile:
    """The file of a license that the transaction holds.

    CUSTOMER_BANNED, STATE_TRANSITION_INVALID, OFFLINE_NOT_ALLOWED, KEY_STORAGE_UNAVAILABLE, TRANSACTION_CONFLICT;
    FIELD_INVALID with TTL_OUT_OF_RANGE, or with LICENSE_KEY_MISMATCH for a key that is not the license's.
    """
    if license_.customer_id is not None:
        customer = await customer_store.find(tx, customer_store.HOLD, license_.customer_id)
        if customer is not None:
            refuse_banned(customer)
    refuse_unless_allowed(license_, tx.now)
    found = span(license_, wanted.ttl, tx.now)
    if wanted.license_key and not await keeper.is_current(tx, license_.license_id, wanted.license_key):
        words = "is not a key of this license that works"
        raise fields_invalid((FieldViolation("license_key", "LICENSE_KEY_MISMATCH", words),))
    product = await catalog_store.hold_product(tx, license_.product_id)
    assert product is not None, "a license holds its product"
    tier = None if license_.tier_id is None else await tier_store.get(tx, license_.tier_id)
    signer = await signers.file_signer(tx, license_.product_id, actor=actor)
    payload = {
        **payload_of_license(license_, product, tier),
        "iss": ISSUER,
        "kind": wanted.kind.name,
        "mode": tx.tenant.mode.value,
        "file_id": wanted.file_id,
        "seq": wanted.seq,
        "revocation_epoch": signer.key_set.revocation_epoch,
        "server_time": tx.now,
        "not_before": found.not_before,
        "expires_at": found.expires_at,
        "fingerprint": fingerprint_mark(wanted.fingerprint) if wanted.fingerprint else None,
        "machine": wanted.machine,
    }
    text = write_file(
        wanted.kind,
        times_written(payload, moment),
        kid=signer.key.signing_key_id,
        sign=signer.sign,
        secret=FileSecret(wanted.license_key, wanted.fingerprint) if wanted.license_key else None,
    )
    return IssuedFile(text, signer.key.signing_key_id, signer.key_set, found, tx.now)
