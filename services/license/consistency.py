"""How fresh the facts of an answer must be, as a request asks for it."""

from __future__ import annotations

from dataclasses import dataclass

from lictor.common.v1.common_pb2 import Consistency

from shared.errors import DomainError, Reason
from shared.freshness.token import Revision, RevisionTokens


@dataclass(frozen=True, slots=True)
class Need:
    """What is asked for beyond the lease.

    Attributes:
        after: A write that must be known; None for none.
        record: Whether the record must answer.
    """

    after: Revision | None = None
    record: bool = False


LEASED = Need()
_RECORD = Need(record=True)


def needs(tokens: RevisionTokens, asked_for: Consistency) -> Need:
    """What a request asks for. REVISION_TOKEN_INVALID where its token is none of ours."""
    match asked_for.WhichOneof("requirement"):
        case "fully_consistent":
            return _RECORD
        case "at_least_as_fresh":
            try:
                return Need(after=tokens.read(asked_for.at_least_as_fresh.revision_token.token))
            except ValueError:
                raise DomainError(
                    Reason.REVISION_TOKEN_INVALID,
                    "the revision token is damaged, or none that this deployment has made",
                ) from None
        case _:
            return LEASED
