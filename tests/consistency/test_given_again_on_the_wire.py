"""The same over both transports, in the time that passes: whatever form a request has on the wire, and once a call that takes
a right away has returned, the serving process answers what one that has just started does."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf import message_factory
from hypothesis import Phase, given, settings
from lictor.account.v1.account_service_pb2 import CreateAccountResponse
from lictor.common.v1.options_pb2 import Effect

from shared.clock import SystemClock
from shared.errors import DomainError, Reason
from tests.consistency.bazaar import Caller, new_account, with_id
from tests.consistency.outcomes import Outcome, Refused, answered, outcome_of
from tests.consistency.stories import Question, Round, live_through, stories
from tests.helpers.builders import METHODS, path_of, rules_of
from tests.helpers.chained import chained
from tests.helpers.echo import as_is, refusal
from tests.helpers.lease import lease_passes
from tests.helpers.suite import Suite

TIMES = 3
"""The first may be a load's, the second is made from memory, the third given again."""


@dataclass(repr=False)
class Wire:
    """The running suite, at which everything is changed and asked."""

    suite: Suite
    operator: str
    other: CreateAccountResponse
    move: None = None

    async def do(self, request: Any, authorization: str) -> Any:
        return await done(self.suite, request, authorization)

    def now(self) -> datetime:
        return datetime.now(UTC).replace(microsecond=0)

    async def look(self, asked: Sequence[Question]) -> None:
        # What is proven by a certificate needs TLS, which the suite of all tests does not have.
        sent = [(Caller(caller.authorization), path, raw) for caller, path, raw in asked]
        found = [[await self._outcome(*one) for _ in range(TIMES)] for one in sent]
        async with chained(self.suite.settings, SystemClock()) as fresh:
            for one, answers in zip(sent, found, strict=True):
                assert answers == [await outcome_of(fresh, *one)] * TIMES, one

    async def _outcome(self, caller: Caller, path: str, raw: bytes) -> Outcome:
        try:
            answer = await call(self.suite, path, raw, caller.authorization)
        except grpc.aio.AioRpcError as error:
            told = refusal(error)
            return Refused(told.reason, told.message, dict(told.info.metadata), told.violations)
        return answered(path, answer)


async def call(suite: Suite, path: str, raw: bytes, authorization: str | None) -> bytes:
    metadata = () if authorization is None else (("authorization", authorization),)
    return await suite.channel.unary_unary(path, as_is, as_is)(raw, timeout=10, metadata=grpc.aio.Metadata(*metadata))


async def done(suite: Suite, request: Any, authorization: str) -> Any:
    """A call that changes something. One that takes a right away holds once it has returned; others after a lease."""
    method = METHODS[request.DESCRIPTOR.full_name]
    try:
        answer = await call(suite, path_of(method), with_id(request).SerializeToString(), authorization)
    except grpc.aio.AioRpcError as error:
        told = refusal(error)
        raise DomainError(Reason(told.reason), told.message) from error
    if rules_of(method).effect not in {Effect.RESTRICTING, Effect.KIND_UNSPECIFIED}:
        await lease_passes()
    found: Any = message_factory.GetMessageClass(method.output_type)
    return found.FromString(answer)


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="wire")
async def _wire(suite: Suite) -> AsyncGenerator[Wire]:
    operator = f"Bearer {suite.operator_key}"

    async def do(request: Any, authorization: str) -> Any:
        return await done(suite, request, authorization)

    yield Wire(suite, operator, await new_account(do, operator))


@pytest.mark.timeout(120)
@given(story=stories)
@settings(max_examples=5, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
async def test_answers_given_again_are_those_of_a_process_that_has_just_started(wire: Wire, story: list[Round]) -> None:
    await live_through(wire, story)


@pytest.mark.long
@pytest.mark.together
@pytest.mark.timeout(600)
@given(story=stories)
@settings(max_examples=40, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
async def test_they_are_for_long(wire: Wire, story: list[Round]) -> None:
    await live_through(wire, story)
