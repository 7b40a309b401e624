"""What this service's servicers stand on."""

from __future__ import annotations

from dataclasses import dataclass

from services.license.answer_counts import AnswerCounts
from services.license.key_keeper import KeyKeeper
from services.license.signers import Signers
from services.license.validation_marks import ValidationMarks
from services.license.watch_hub import Watches
from shared.crypto.fingerprints import FingerprintHasher
from shared.crypto.hashing import SecretHasher
from shared.crypto.page_tokens import PageTokens
from shared.db.pool import Database
from shared.facts.license_reader import LicenseFactsReader
from shared.facts.signing_keys import KeySets
from shared.rpc.writes import Writer


@dataclass(frozen=True, slots=True)
class Resources:
    """Opened by app.py, closed with the process. `db` is lictor_license's pool; facts are read as lictor_facts."""

    db: Database
    facts: LicenseFactsReader
    writer: Writer
    hasher: SecretHasher
    fingerprints: FingerprintHasher
    pages: PageTokens
    keeper: KeyKeeper
    marks: ValidationMarks
    counts: AnswerCounts
    watches: Watches
    signers: Signers
    key_sets: KeySets
