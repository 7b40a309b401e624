"""What a process answers that has long been asked the same, by callers whom it has long known, is what one that has just started
answers: whoever asks, whatever is asked, and whatever has happened in between.

The record's time stands still unless it is moved, so that the answers are compared to the microsecond.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast
from uuid import uuid4

import pytest
import pytest_asyncio
from google.protobuf import message_factory
from hypothesis import Phase, example, given, settings
from lictor.account.v1 import account_service_pb2 as accounts

from services import suite as services_suite
from services.bootstrap import bootstrap_operator_key
from services.suite_settings import SuiteSettings
from shared.embedded.postgres import EmbeddedPostgres
from shared.facts import following
from shared.facts.credentials import RecalledPrincipal
from shared.freshness.recall import Recall
from tests.consistency.asking import WHO
from tests.consistency.bazaar import Caller, new_account, with_id
from tests.consistency.outcomes import Answered, Refused, outcome_of
from tests.consistency.stage import StageTail
from tests.consistency.stories import Question, Round, live_through, stories
from tests.helpers.builders import METHODS, path_of
from tests.helpers.chained import Chained, chained
from tests.helpers.lease import set_lease
from tests.helpers.record import OwnRecord
from tests.helpers.record_time import RecordTime, timeless
from tests.helpers.redis_tier import TurnedClock
from tests.helpers.suite import new_settings

L_S: Final = 1.0


@dataclass(repr=False)
class Stall:
    """A process that is asked throughout, one that changes things, and others that have just started when they are asked."""

    settings: SuiteSettings
    time: RecordTime
    clock: TurnedClock
    warm: Chained
    hands: Chained
    operator: str
    other: accounts.CreateAccountResponse
    recalled: Counter[str] = field(default_factory=Counter[str])
    compared: Counter[str] = field(default_factory=Counter[str])

    async def do(self, request: Any, authorization: str) -> Any:
        """A call of whoever changes things. Every process knows of it then."""
        return await done(self.hands, with_id(request), authorization, self.clock)

    def now(self) -> datetime:
        return self.time.now

    async def move(self, by: timedelta) -> None:
        """Time goes on, for the record and for those who have asked it."""
        await self.time.move(self.time.now + by)
        self.clock.at_s += by.total_seconds()

    async def look(self, asked: Sequence[Question]) -> None:
        """Each question is asked of both, of the one twice in a row, and again after all others."""
        again = [[await outcome_of(self.warm, *one) for _ in range(2)] for one in asked]
        self.clock.at_s += L_S  # what was loaded is in memory by the next poll at the latest
        for n in reversed(range(len(asked))):
            again[n] += [await outcome_of(self.warm, *asked[n]) for _ in range(2)]
        async with started(self.settings) as fresh:
            for one, answers in zip(asked, again, strict=True):
                expected = await outcome_of(fresh, *one)
                assert answers == [expected] * 4, one
                self.compared[expected.reason if isinstance(expected, Refused) else "OK"] += 1
        for answer in (answer for answers in again for answer in answers if isinstance(answer, Answered)):
            for at in answer.evaluated:
                assert self.time.now - timedelta(seconds=L_S) <= at <= self.time.now


async def done(process: Chained, request: Any, authorization: str, clock: TurnedClock) -> Any:
    method = METHODS[request.DESCRIPTOR.full_name]
    clock.at_s += L_S
    raw = await process.call(path_of(method), request.SerializeToString(), authorization)
    clock.at_s += L_S
    return cast("Any", message_factory.GetMessageClass(method.output_type)).FromString(raw)


async def ending(process: Chained, clock: TurnedClock) -> None:
    """Lets a process poll: loads that knew more than its last poll wait for the next one."""
    clock.at_s += L_S
    await outcome_of(process, Caller(None, "spiffe://nobody.test/a"), WHO, b"")


@asynccontextmanager
async def started(settings: SuiteSettings) -> AsyncGenerator[Chained]:
    """A process that has just started."""
    clock = TurnedClock()
    async with chained(settings, clock) as process:
        yield process
        await ending(process, clock)


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="stall")
async def _stall(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Stall]:
    folder: Path = tmp_path_factory.mktemp("stall")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(following, "Tail", StageTail)  # polls when a call asks, and only then: time moves in between
        async with timeless(postgres) as (record, time):
            settings = new_settings(OwnRecord(record), folder)
            await set_lease(record.admin_dsn, int(L_S * 1000))
            key_file = folder / f"operator-{uuid4().hex}"
            await bootstrap_operator_key(record.admin_dsn, settings.root_secret_file, key_file)
            operator, clock = f"Bearer {key_file.read_text().strip()}", TurnedClock()
            async with chained(settings, clock) as warm, chained(settings, clock, services_suite.build) as hands:

                async def do(request: Any, authorization: str) -> Any:
                    return await done(hands, with_id(request), authorization, clock)

                other = await new_account(do, operator)
                stall = Stall(settings, time, clock, warm, hands, operator, other)
                patch.setattr(Recall, "get", counting(cast("Any", Recall).get, stall.recalled))
                yield stall
                await ending(warm, clock)
                await ending(hands, clock)


def counting(get: Any, counts: Counter[str]) -> Any:
    """The same, and counts what was given again."""

    def counted(self: Any, key: Any) -> Any:
        found = get(self, key)
        if found is not None:
            counts["principals" if isinstance(found[0], RecalledPrincipal) else "answers"] += 1
        return found

    return counted


SETTINGS: Final = {"deadline": None, "phases": (Phase.explicit, Phase.reuse, Phase.generate)}
"""Each example is an account's life: making a failing one smaller takes longer than to read it."""


TWO_KEYS: Final = [Round([("rotate", 0)], 0.0, None, []), Round([], 0.3, 5, [])]
"""For a while a license has two keys: both name it, and end at different times."""


@pytest.mark.timeout(120)
@given(story=stories)
@example(story=TWO_KEYS)
@settings(max_examples=16, **SETTINGS)  # pyright: ignore[reportArgumentType] - each of another type
async def test_answers_given_again_are_those_of_a_process_that_has_just_started(
    stall: Stall, story: list[Round]
) -> None:
    await live_through(stall, story)


@pytest.mark.long
@pytest.mark.together
@pytest.mark.timeout(1200)
@given(story=stories)
@settings(max_examples=120, **SETTINGS)  # pyright: ignore[reportArgumentType] - each of another type
async def test_they_are_for_long(stall: Stall, story: list[Round]) -> None:
    await live_through(stall, story)


@pytest.fixture(scope="module", autouse=True)
def something_was_given_again(stall: Stall) -> Generator[None]:
    """Otherwise nothing was shown."""
    yield
    print(f"{dict(stall.recalled)} were given again; compared: {dict(stall.compared)}")
    assert min(stall.recalled["principals"], stall.recalled["answers"]) > 300
