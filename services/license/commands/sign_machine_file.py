"""A machine file is signed, for the machine service."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from lictor._core.offline_format import FileKind

from services.license import store
from services.license.file_signing import IssuedFile, WantedFile, sign_file
from services.license.key_keeper import KeyKeeper
from services.license.signers import Signers
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.ids import Prefix, new_id


@dataclass(frozen=True, slots=True)
class MachineOfFile:
    """The machine that a file is for, by its id and its fingerprint; `seq` is the number of the file among its files."""

    machine_id: str
    fingerprint: str
    seq: int


async def sign_machine_file(
    tx: Transaction,
    signers: Signers,
    keeper: KeyKeeper,
    *,
    actor: str,
    license_id: str,
    machine: MachineOfFile,
    ttl: timedelta | None,
    license_key: str,
) -> tuple[str, IssuedFile]:
    """The file's id, and the file. LICENSE_NOT_FOUND, and what `sign_file` raises. Nothing of it is remembered here."""
    # Whatever the caller knows of the license, what counts is what it is now, and until the signature is made.
    found = await store.lock_license(tx, license_id)
    if found is None:
        raise not_found(Reason.LICENSE_NOT_FOUND, license_id)
    file_id = new_id(Prefix.LICENSE_FILE)
    said = {"machine_id": machine.machine_id}
    wanted = WantedFile(FileKind.MACHINE, file_id, machine.seq, ttl, license_key, machine.fingerprint, said)
    return file_id, await sign_file(tx, signers, keeper, found, wanted, actor=actor)
