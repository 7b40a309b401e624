"""A machine goes offline: a file that proves its seat for a while without a call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from services.machine import file_store, store, terms_store
from services.machine.commands.find_machine import find_machine
from services.machine.events import machine_event
from services.machine.file_store import MachineFile
from services.machine.identities import is_known_by
from services.machine.model import Action, Machine, refuse_leased, refuse_unless_allowed, touched
from services.machine.terms import Terms
from shared.crypto.fingerprints import FingerprintHasher
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import DomainError, FieldViolation, Reason, fields_invalid, not_found


@dataclass(frozen=True, slots=True)
class SignedFile:
    """What the license service has signed."""

    file: MachineFile
    text: str
    key_set_id: str


@dataclass(frozen=True, slots=True)
class NewFile:
    """The machine as it is then, what it lives under, and the file."""

    machine: Machine
    terms: Terms | None
    signed: SignedFile


Sign = Callable[[Machine, int], Awaitable[SignedFile]]


async def issue_machine_file(
    tx: Transaction,
    hasher: FingerprintHasher,
    sign: Sign,
    *,
    actor: str,
    machine_id: str,
    fingerprint: str,
    reason: str,
) -> NewFile:
    """MACHINE_NOT_FOUND, STATE_TRANSITION_INVALID, OFFLINE_NOT_ALLOWED, TRANSACTION_CONFLICT; FIELD_INVALID with
    FINGERPRINT_MISMATCH; and what `sign` raises, which is given the machine and the number of the file among those of the
    machine."""
    # Nothing is held while another service is asked: what was found is looked at again after that.
    found = await store.get_machine(tx, machine_id)
    if found is None:
        raise not_found(Reason.MACHINE_NOT_FOUND, machine_id)
    refuse_unless_allowed(found, Action.CHECK_OUT, tx.now, await terms_store.terms_of(tx, found.license_id))
    refuse_leased(found)
    if not is_known_by(hasher, tx.tenant, found, fingerprint):
        words = "is none that the machine is known by"
        raise fields_invalid((FieldViolation("fingerprint", "FINGERPRINT_MISMATCH", words),))
    seq = await file_store.newest_seq(tx, machine_id) + 1
    signed = await sign(found, seq)
    held, terms = await find_machine(tx, machine_id)
    refuse_unless_allowed(held, Action.CHECK_OUT, tx.now, terms)
    refuse_leased(held)
    if await file_store.newest_seq(tx, machine_id) + 1 != seq or not is_known_by(hasher, tx.tenant, held, fingerprint):
        raise DomainError(Reason.TRANSACTION_CONFLICT, "the machine got another file, or became another one, meanwhile")
    until = signed.file.expires_at
    away = touched(replace(held, offline_until=until), tx.now)
    await store.update_machine(tx, away)
    await file_store.insert(tx, signed.file)
    told = machine_event("machine.checked_out", away, actor, reason)
    about = {
        "machine_file_id": signed.file.machine_file_id,
        "file_seq": seq,
        "file_expires_at": until.isoformat(),
        "signing_key_id": signed.file.signing_key_id,
    }
    await emit(tx, Event(told.type, told.subject, {**told.data, **about}, told.actor, told.reason, told.source))
    return NewFile(away, terms, signed)
