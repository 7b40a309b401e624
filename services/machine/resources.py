"""What this service's servicers stand on."""

from __future__ import annotations

from dataclasses import dataclass

from services.machine.beats import Beats
from services.machine.holds import Holds
from services.machine.seat_news import SeatNews
from services.machine.secrets import MachineSecrets
from shared.crypto.fingerprints import FingerprintHasher
from shared.crypto.hashing import SecretHasher
from shared.crypto.page_tokens import PageTokens
from shared.db.pool import Database
from shared.facts.license_reader import LicenseFactsReader
from shared.rpc.client import ServiceCaller
from shared.rpc.effects import EffectWaits
from shared.rpc.writes import Writer


@dataclass(frozen=True, slots=True)
class Resources:
    """Opened by app.py, closed with the process. `db` is lictor_machine's pool; facts are read as lictor_facts; `calls`
    reach the license service, in this process or another."""

    db: Database
    facts: LicenseFactsReader
    writer: Writer
    hasher: SecretHasher
    fingerprints: FingerprintHasher
    secrets: MachineSecrets
    pages: PageTokens
    waits: EffectWaits
    news: SeatNews
    holds: Holds
    beats: Beats
    calls: ServiceCaller
