"""Who asks, and who is answered, where the record is away: `Reader.or_stale` and what stands on it, to the microsecond."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final, NoReturn

import asyncpg
import pytest
import pytest_asyncio

from services.license import grace
from shared.crypto import api_keys
from shared.crypto.api_keys import KeyPrefix
from shared.crypto.hashing import SecretHasher
from shared.db.faults import record_unreachable
from shared.errors import DomainError, Reason
from shared.facts.credentials import FactsAuthenticator
from shared.freshness.poll import Polled
from shared.freshness.reader import Source
from shared.rules.stale import MAX_STALE
from shared.tenancy import Mode, Principal, PrincipalKind
from tests.consistency.stage import Cast, Process, process_on
from tests.helpers.record import Scratch
from tests.helpers.redis_tier import SECRET

TICK_S: Final = 1e-6
ALLOWED_S: Final = 60.0
"""`stale_ok_for` of the policy of a sample."""


@dataclass
class Away:
    """A process that has learned a license, and that the record stops answering."""

    process: Process
    cast: Cast
    monkeypatch: pytest.MonkeyPatch
    reads: int = 0
    looks: int = 0
    """How often it was looked for what may be answered without a lease."""
    outcomes: list[Any] = field(default_factory=list[Any])
    """What reads end with, one after the other; the last of them from then on."""

    def lose(self) -> None:
        async def load(statement: str, *arguments: object) -> Sequence[asyncpg.Record]:
            raise record_unreachable()

        def lost(polled: Polled) -> NoReturn:
            raise OSError

        self.process.source.change = lost
        self.monkeypatch.setattr(self.process.db, "load", load)

    def since_asked(self, seconds: float) -> None:
        """Turns the clock to so long after the last poll that went well."""
        self.process.clock.at_s = self.process.tail.state.asked_at + seconds

    async def read(self) -> str:
        self.reads += 1
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def or_stale(self, stale: str | None = "stale") -> str:
        def looked() -> str | None:
            self.looks += 1
            return stale

        return await self.process.reader.or_stale(self.read, looked)

    @property
    def lease_s(self) -> float:
        return self.process.tail.state.terms.lease_s


@pytest_asyncio.fixture(loop_scope="session", name="away")
async def _away(db: Scratch, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Away]:
    await cast.run("UPDATE license.policy SET max_uses = NULL WHERE account_id = $1")
    await cast.run("UPDATE license.license SET max_uses_override = NULL WHERE account_id = $1")
    async with process_on(db) as process:
        await cast.learned_by(process)
        yield Away(process, cast, monkeypatch)
        process.source.change = lambda polled: polled


async def refused(call: Any) -> Reason:
    with pytest.raises(DomainError) as caught:
        await call
    return caught.value.reason


async def test_while_the_lease_lasts_nothing_but_the_normal_way_is_gone(away: Away) -> None:
    away.outcomes = [record_unreachable()]
    away.since_asked(away.lease_s - TICK_S)
    assert await refused(away.or_stale()) is Reason.RECORD_UNREACHABLE
    assert away.reads == 2, "with a lease it is worth another try"
    assert not away.looks
    away.since_asked(away.lease_s)
    assert await away.or_stale() == "stale"
    assert away.reads == 3


async def test_the_record_is_asked_once_and_then_again_when_something_has_reached_it(away: Away) -> None:
    away.outcomes = [record_unreachable()]
    away.since_asked(away.lease_s)
    for _ in range(3):
        assert await away.or_stale() == "stale"
    assert away.reads == 1
    await away.process.poll()  # the record is back, and a moment later it is away again
    away.since_asked(away.lease_s)
    for _ in range(3):
        assert await away.or_stale() == "stale"
    assert away.reads == 2


async def test_a_load_that_went_well_ends_it_though_no_poll_does(away: Away) -> None:
    away.outcomes = [record_unreachable()]
    away.since_asked(away.lease_s)
    assert await away.or_stale() == await away.or_stale() == "stale"
    await away.process.licenses.recorded(away.cast.tenant, away.cast.wanted)
    assert await away.or_stale() == "stale"
    assert away.reads == 2


async def test_where_nothing_may_be_answered_the_record_is_asked_each_time(away: Away) -> None:
    away.outcomes = [record_unreachable()]
    away.since_asked(away.lease_s)
    for _ in range(3):
        assert await refused(away.or_stale(None)) is Reason.RECORD_UNREACHABLE
    assert away.reads == 3


async def test_a_record_that_answers_is_believed(away: Away) -> None:
    away.since_asked(away.lease_s)
    away.outcomes = ["fresh"]
    assert await away.or_stale() == "fresh"
    away.outcomes = [DomainError(Reason.CALLER_NOT_ALLOWED, "no")]
    assert await refused(away.or_stale()) is Reason.CALLER_NOT_ALLOWED


async def test_a_lease_that_comes_back_while_the_record_is_tried_is_used(away: Away) -> None:
    away.since_asked(away.lease_s)

    async def read() -> str:
        away.reads += 1
        if away.reads > 1:
            return "fresh"
        await away.process.poll()
        raise record_unreachable()

    assert await away.process.reader.or_stale(read, lambda: "stale") == "fresh"


async def test_one_that_hangs_is_not_waited_for_where_there_is_an_answer(away: Away) -> None:
    away.since_asked(away.lease_s)
    hanging = asyncio.Event()

    async def read() -> str:
        away.reads += 1
        await hanging.wait()
        return "fresh"

    async with asyncio.timeout(5):
        assert await away.process.reader.or_stale(read, lambda: "stale") == "stale"
        assert await away.process.reader.or_stale(read, lambda: "stale") == "stale"
    assert away.reads == 1
    waiting = asyncio.create_task(away.process.reader.or_stale(read, lambda: None))
    await asyncio.sleep(0)
    hanging.set()
    assert await waiting == "fresh", "who has nothing else waits"


async def ask(away: Away, principal: Principal) -> Any:
    resources: Any = SimpleNamespace(facts=away.process.licenses)
    return await grace.load_one(resources, principal, away.cast.wanted, None)


async def test_a_policy_allows_so_long_and_no_microsecond_more(away: Away) -> None:
    principal = Principal(PrincipalKind.SECRET_KEY, away.cast.tenant.account_id, Mode.TEST, "key", frozenset(), None)
    away.lose()
    away.since_asked(away.lease_s - TICK_S)
    assert (await ask(away, principal)).source is Source.LEASED
    for seconds in (away.lease_s, ALLOWED_S - TICK_S):
        away.since_asked(seconds)
        assert (await ask(away, principal)).source is Source.GRACE
    for seconds in (ALLOWED_S, ALLOWED_S + TICK_S):
        away.since_asked(seconds)
        assert await refused(ask(away, principal)) is Reason.RECORD_UNREACHABLE


async def test_who_was_let_in_by_one_state_is_answered_from_no_other(away: Away) -> None:
    state = away.process.tail.state
    let_in = Principal(
        PrincipalKind.SECRET_KEY, away.cast.tenant.account_id, Mode.TEST, "key", frozenset(), None,
        stale_as_of=state.asked_at,
    )  # fmt: skip
    away.since_asked(ALLOWED_S / 2)
    assert (await ask(away, let_in)).source is Source.GRACE
    await away.process.poll()
    away.since_asked(away.lease_s)
    assert await refused(ask(away, let_in)) is Reason.RECORD_UNREACHABLE


@pytest.mark.parametrize("kind", ["secret key", "workload"])
async def test_a_credential_is_known_for_a_day(away: Away, kind: str) -> None:
    process, cast, hasher = away.process, away.cast, SecretHasher(SECRET)
    key = api_keys.generate(KeyPrefix.SECRET_TEST)
    await cast.admin.execute(
        "UPDATE license.api_key SET key_hash = $2, revoked_at = NULL, expires_at = NULL WHERE account_id = $1",
        cast.tenant.account_id, hasher.hash(key),
    )  # fmt: skip
    binding = cast.rows["license.workload_binding"]
    shown = {
        "secret key": (f"Bearer {key}", ""),
        "workload": (None, f"spiffe://{binding['trust_domain']}{binding['path']}"),
    }[kind]
    authenticator = FactsAuthenticator(process.db, process.reader, process.licenses, hasher)
    await process.poll()
    await authenticator.authenticate(*shown)
    await process.poll()
    known = await authenticator.authenticate(*shown)
    away.lose()
    for seconds in (away.lease_s, MAX_STALE.total_seconds() - TICK_S):
        away.since_asked(seconds)
        stale = await authenticator.authenticate(*shown, in_grace=True)
        assert (stale.key_id, stale.stale_as_of) == (known.key_id, process.tail.state.asked_at)
        assert await refused(authenticator.authenticate(*shown)) is Reason.RECORD_UNREACHABLE
    away.since_asked(MAX_STALE.total_seconds())
    assert await refused(authenticator.authenticate(*shown, in_grace=True)) is Reason.RECORD_UNREACHABLE
