"""How calls end, without what differs from one call to the next."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf.message import Message
from lictor.account.v1.account_service_pb2 import WhoAmIResponse
from lictor.common.v1.common_pb2 import Decision
from lictor.license.v1 import validation_service_pb2 as pb

from shared.errors import DomainError, Reason
from tests.consistency.asking import BATCH, VALIDATE, WHO
from tests.consistency.bazaar import Caller
from tests.helpers.chained import Chained

OF_ONE_CALL: Final = ("decision_id", "evaluated_at", "freshness")
ANSWERS: Final[dict[str, Any]] = {
    VALIDATE: pb.ValidateLicenseResponse, BATCH: pb.BatchValidateLicensesResponse, WHO: WhoAmIResponse
}  # fmt: skip


@dataclass(frozen=True)
class Refused:
    """A refusal, as far as it is the same for the same call."""

    reason: str
    message: str
    metadata: dict[str, str]
    violations: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Answered:
    """An answer, and when what was decided held."""

    answer: Message
    evaluated: tuple[datetime, ...] = field(compare=False)


Outcome = Refused | Answered


async def outcome_of(process: Chained, caller: Caller, path: str, raw: bytes) -> Outcome:
    """How a call of a process ends."""
    try:
        answer = await process.call(path, raw, caller.authorization, caller.peer_identity)
    except DomainError as error:
        assert error.reason is not Reason.INTERNAL_FAULT, error
        violations = [(one.field, one.reason) for one in error.violations]
        return Refused(error.reason.value, error.message, dict(error.metadata), violations)
    return answered(path, answer)


def answered(path: str, raw: bytes) -> Answered:
    """An answer, with its state and its ids taken out."""
    answer = ANSWERS[path].FromString(raw)
    evaluated: list[datetime] = []
    for decision in _decisions(answer):
        evaluated.append(decision.evaluated_at.ToDatetime(tzinfo=UTC))
        for name in OF_ONE_CALL:
            decision.ClearField(name)
    if isinstance(answer, pb.BatchValidateLicensesResponse):
        for result in answer.results:
            del result.status.details[:]  # they name the call
    return Answered(answer, tuple(evaluated))


def _decisions(answer: Message) -> Generator[Decision]:
    if isinstance(answer, pb.ValidateLicenseResponse):
        yield answer.decision
    if isinstance(answer, pb.BatchValidateLicensesResponse):
        yield from (result.response.decision for result in answer.results if result.HasField("response"))
