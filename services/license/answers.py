"""Answers to validations that would be given again, kept as the bytes that they are sent as.

An answer depends on the request, on who asks, on facts and on time, and on nothing else. What changes from one call to the
next is the id of the decision and the state that it was made at; the rest is what protobuf made of it the first time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from lictor.common.v1.common_pb2 import Decision, Freshness, View
from lictor.license.v1 import validation_service_pb2 as pb

from services.license import render
from services.license.answer_counts import AnswerCounts
from services.license.deciding import Decided
from services.license.decision import RECHECK_AFTER, changes_at
from services.license.validation_marks import ValidationMarks
from shared.crypto.marks import mark
from shared.freshness.reader import Reader
from shared.freshness.recall import Recall, Recalled
from shared.freshness.tail import State
from shared.ids import Prefix, new_id
from shared.rpc.context import CallContext
from shared.tenancy import Principal

MARKED_AGAIN_AFTER: Final = timedelta(minutes=1)
"""Within it an answer that is given again marks its license once: a hundred thousand licenses, each found valid every few
seconds, are else as many writes."""
_PLAIN: Final = frozenset({View.KIND_UNSPECIFIED, View.DECISION})
_ONE_BYTE: Final = 0x80
"""Lengths below this take one byte on the wire."""
_ONE_BYTE_LENGTHS: Final = tuple(bytes((length,)) for length in range(_ONE_BYTE))


@dataclass(slots=True)
class Answer(Recalled):
    """A kept answer.

    Attributes:
        principal: Who asked, as last seen.
        license_id: The license that it is about.
        touched: When it last marked the license as validated; None for one that is not valid.
        decision: Those fields of the decision that stay the same.
        rest: All fields of the answer but the decision.
    """

    principal: Principal
    license_id: str
    touched: datetime | None
    decision: bytes
    rest: bytes


class Answers:
    """Answers of validations, at most `most`.

    Args:
        reader: Whose memory they are made of.
        marks: Told of each valid one.
        counts: Told of each that is given again.
        most: How many are kept.
    """

    def __init__(self, reader: Reader, marks: ValidationMarks, counts: AnswerCounts, most: int) -> None:
        self._tail = reader.tail
        self._marks = marks
        self._counts = counts
        self._recall: Recall[bytes, Answer] = Recall(reader.tail, reader.memory, most)
        self._state: State | None = None
        self._state_bytes = b""

    def recalled(self, context: CallContext, key: bytes) -> bytes | None:
        """The answer, serialized; None where it has to be made. RATE_LIMITED."""
        found = self._recall.get(key)
        if found is None or not _is_of(found[0], context.principal):
            return None
        context.charge_license(found[0].license_id)
        return self._given(*found)

    def again(self, principal: Principal, key: bytes) -> bytes | None:
        """The same for a caller whose calls are not counted."""
        found = self._recall.get(key)
        return None if found is None or not _is_of(found[0], principal) else self._given(*found)

    def _given(self, answer: Answer, now: datetime) -> bytes:
        self._counts.again += 1
        if answer.touched is not None and now - answer.touched >= MARKED_AGAIN_AFTER:
            self._marks.touched((answer.principal.tenant, answer.license_id), now)
            answer.touched = now
        state = self._of_state()
        size = _ONE_BYTE_LENGTHS[_ID_BYTES + len(state) + len(answer.decision)]
        id_ = new_id(Prefix.DECISION).encode()
        return b"".join((_DECISION_TAG, size, _ID_TAG, id_, state, answer.decision, answer.rest))

    def keep(
        self,
        key: bytes,
        principal: Principal,
        request: pb.ValidateLicenseRequest,
        decided: Decided,
        response: pb.ValidateLicenseResponse,
    ) -> bytes:
        """The answer, serialized. One that was made from memory is kept, where it may be given again."""
        answer = response.SerializeToString()
        facts, now, made_of = decided.loaded.facts, decided.loaded.now, decided.loaded.made_of
        # A license that there is not is counted by its key, which is not kept.
        if facts is None or not made_of or request.view not in _PLAIN or request.HasField("consistency"):
            return answer
        if request.identity.HasField("workload"):
            return answer  # it depends on the caller's certificate
        until = changes_at(facts, now)
        if until is not None and until - RECHECK_AFTER <= now:
            return answer  # it counts down to it
        again = Decision(recheck_after=response.decision.recheck_after)
        if response.decision.HasField("valid_until"):
            again.valid_until.CopyFrom(response.decision.valid_until)
        decision, decision_bytes = again.SerializeToString(), response.decision.ByteSize()
        if decision_bytes >= _ONE_BYTE or len(decision) + _CHANGING_BYTES >= _ONE_BYTE:
            return answer
        rest = answer[len(_DECISION_TAG) + 1 + decision_bytes :]  # which is the first field
        touched = now if decided.verdict.valid else None
        ends = None if until is None else until - RECHECK_AFTER
        self._recall.put(key, Answer(made_of, now, ends, principal, facts.license_id, touched, decision, rest))
        return answer

    def _of_state(self) -> bytes:
        """The fields of a decision that tell the state: the same for all calls between two polls."""
        state = self._tail.state
        if state is not self._state:
            self._state, self._state_bytes = state, _state_bytes(state.at)
        return self._state_bytes


def _is_of(answer: Answer, principal: Principal) -> bool:
    """Whether it was made for the same caller. One that was looked up anew, as after a moment without a lease, is another
    object, and the same caller where all of it is the same."""
    if answer.principal is principal:
        return True
    if answer.principal != principal:
        return False
    answer.principal = principal  # the next look is a short one
    return True


def key_of(principal: Principal, request: bytes) -> bytes:
    """All that an answer to a serialized request depends on beside facts and time, but that the principal must be the
    same."""
    return mark(asker_of(principal) + request)


def asker_of(principal: Principal) -> bytes:
    """What such a key has of who asks."""
    return f"{principal.key_id}/{principal.license_id}/".encode()


def _state_bytes(at: datetime) -> bytes:
    return Decision(evaluated_at=render.timestamp(at), freshness=Freshness.LEASED).SerializeToString()


_SAMPLE_ID: Final = new_id(Prefix.DECISION)
_ID_TAG: Final = Decision(decision_id=_SAMPLE_ID).SerializeToString().removesuffix(_SAMPLE_ID.encode())
_ID_BYTES: Final = len(_ID_TAG) + len(_SAMPLE_ID)
_DECISION_TAG: Final = pb.ValidateLicenseResponse(decision=Decision(decision_id="x")).SerializeToString()[:1]
_CHANGING_BYTES: Final = _ID_BYTES + 20
"""What the id and the state take at most."""
