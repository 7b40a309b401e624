"""What a service stands on that knows its callers and answers from memory: opened once in a process, closed with it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prometheus_client import Counter
from prometheus_client.registry import Collector

from shared.clock import Clock
from shared.crypto import root_secret
from shared.crypto.hashing import SecretHasher
from shared.crypto.root_secret import RootSecret
from shared.crypto.service_tokens import ServiceTokens
from shared.db.pool import Database, PostgresTarget, read_passwords
from shared.db.roles import Role
from shared.facts.credentials import FactsAuthenticator
from shared.facts.following import following
from shared.facts.license_reader import LicenseFactsReader
from shared.facts.stale_spans import longest_stale
from shared.freshness.reader import Reader
from shared.freshness.redis_metrics import TierMetrics
from shared.freshness.redis_tier import RedisTier
from shared.freshness.token import RevisionTokens
from shared.rpc.effects import EffectWaits
from shared.rpc.writes import Taken, Writer, replays
from shared.settings import FactsSettings


@dataclass(frozen=True, slots=True)
class Standing:
    """What services of one process share. `facts` is lictor_facts' pool, `collectors` what all of it counts."""

    record: PostgresTarget
    root: RootSecret
    hasher: SecretHasher
    facts: Database
    reader: Reader
    licenses: LicenseFactsReader
    authenticator: FactsAuthenticator
    services: ServiceTokens
    waits: EffectWaits
    replayed: Counter
    collectors: Sequence[Collector]

    def writer(self, db: Database, taken: Taken) -> Writer:
        """Runs the mutations of a service, whose pool is `db`."""
        tokens = RevisionTokens(self.root)
        return Writer(db, tokens, taken, lambda account_id: longest_stale(self.facts, account_id), self.replayed)


@asynccontextmanager
async def standing(settings: FactsSettings, clock: Clock) -> AsyncGenerator[Standing]:
    """Opens all of it, and follows the record's changes for as long as the block runs."""
    record = PostgresTarget(settings.postgres_dsn.get_secret_value(), read_passwords(settings.postgres_password_file))
    root = root_secret.load(settings.root_secret_file)
    hasher, metrics = SecretHasher(root), TierMetrics()
    tier = _tier(settings, root, clock, metrics)
    async with (
        Database.opened(record, Role.FACTS, size=settings.pool_size) as facts,
        following(record, clock, settings.facts_memory_bytes, tier) as known,
    ):
        licenses, replayed = LicenseFactsReader(facts, known.reader), replays()
        yield Standing(
            record=record,
            root=root,
            hasher=hasher,
            facts=facts,
            reader=known.reader,
            licenses=licenses,
            authenticator=FactsAuthenticator(facts, known.reader, licenses, hasher),
            services=ServiceTokens(root, clock),
            waits=EffectWaits(known.reader.tail, clock, None if tier is None else tier.publish_hint),
            replayed=replayed,
            collectors=[replayed, *known.collectors, *metrics.collectors],
        )


def _tier(settings: FactsSettings, root: RootSecret, clock: Clock, metrics: TierMetrics) -> RedisTier | None:
    if settings.redis_url is None:
        return None
    url = settings.redis_url.get_secret_value()
    return RedisTier(url, root, clock, metrics, password_file=settings.redis_password_file)
