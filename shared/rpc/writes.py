"""How a mutation runs: claim its request id, do the work, stamp the answer, store it, commit. All in one transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import cache
from time import monotonic
from typing import Protocol, TypeVar, cast
from uuid import UUID

import asyncpg
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from lictor.common.v1.common_pb2 import RevisionToken
from prometheus_client import Counter

from shared.db import idempotency
from shared.db.pool import Database, Transaction
from shared.errors import DomainError
from shared.freshness.epoch import EPOCH
from shared.freshness.token import Revision, RevisionTokens
from shared.rpc.context import CallContext
from shared.rpc.effects import refuse_short

_NO_EPOCH = UUID(int=0)


class WriteResponse(Protocol):
    """What the answer of every mutation carries."""

    @property
    def revision_token(self) -> RevisionToken: ...
    @property
    def effective_time(self) -> Timestamp: ...


R = TypeVar("R", bound=WriteResponse)
Work = Callable[[Transaction], Awaitable[R]]
Taken = Callable[[str], DomainError | None]
Stale = Callable[[str], Awaitable[timedelta]]


@cache
def _holds_secret(descriptor: Descriptor) -> bool:
    """Whether a field of the message, or of a message in it, at whatever depth, is marked as a secret."""
    seen, ahead = {descriptor.full_name}, [descriptor]
    while ahead:
        for field in ahead.pop().fields:
            if field.GetOptions().debug_redact:
                return True
            inner = field.message_type
            if inner is not None and inner.full_name not in seen:
                seen.add(inner.full_name)
                ahead.append(inner)
    return False


def replays() -> Counter:
    """The count of all writers of a process."""
    return Counter("lictor_writes_replayed", "Retries that were given the stored answer", registry=None)


class Writer:
    """Runs mutations of one service.

    Args:
        db: Where.
        tokens: Marks the states that they make.
        taken: Says what a violated unique or foreign key means to the caller.
        stale: For how long answers may be given without a lease while the record is away, of the account with an id.
        replayed: Counts the retries that were given the stored answer.
    """

    def __init__(
        self, db: Database, tokens: RevisionTokens, taken: Taken, stale: Stale, replayed: Counter | None = None
    ) -> None:
        self._db = db
        self._stale = stale
        self.tokens = tokens
        self._taken = taken
        self._replayed = replayed or replays()

    async def run(
        self,
        context: CallContext,
        request: Message,
        response_type: type[R],
        work: Work[R],
        *,
        restricts: Callable[[R], bool] = lambda _: False,
    ) -> R:
        """The answer of `work`, or the stored one of an earlier call with the same `request_id`. DEADLINE_TOO_SHORT, with
        nothing changed, where less time is left than the effect takes. `restricts` says of an answer whether it took a right
        away from somebody though its method does not always."""
        wait_s = context.effect_wait_s
        if getattr(request, "return_before_effective", False):
            context.effect_wait_s = 0.0
        refuse_short(context)
        try:
            async with self._db.transaction(context.principal.tenant) as tx:
                response, at, known = await self._in_transaction(tx, context, request, response_type, work)
                if restricts(response):
                    wait_s = context.restricting_wait_s
                    if not getattr(request, "return_before_effective", False):
                        context.effect_wait_s = wait_s
                refuse_short(context)
        except asyncpg.IntegrityConstraintViolationError as error:
            meant = self._taken(error.constraint_name or "")
            if meant is None:
                raise
            raise meant from error
        # From the record's time at which the reply to COMMIT was in: a retry's is its own, and so never too early.
        elapsed = timedelta(seconds=monotonic() - known)  # not the loop's time: uvloop keeps it for a turn
        effective = at + elapsed + timedelta(seconds=wait_s)
        if wait_s:
            # Read after the commit: whoever learns of a longer one after that has learnt of the change.
            effective += await self._stale(context.principal.account_id or getattr(request, "account_id", ""))
        response.effective_time.FromDatetime(effective)
        return response

    async def _in_transaction(
        self, tx: Transaction, context: CallContext, request: Message, response_type: type[R], work: Work[R]
    ) -> tuple[R, datetime, float]:
        """The answer, and a moment by the record's clock and by this process's."""
        message_type = cast("type[Message]", response_type)
        claim = self._claim(context, request, message_type)
        if claim is not None:
            stored = await idempotency.claim(tx, claim)
            if stored is not None:
                self._replayed.inc()
                return cast("R", message_type.FromString(stored)), await _record_time(tx), monotonic()
        response = await work(tx)
        revision, at = await _revision(tx)
        known = monotonic()
        response.revision_token.token = self.tokens.make(revision)
        if claim is not None:
            await tx.back()
            await idempotency.store(tx, claim, cast("Message", response).SerializeToString())
        return response, at, known

    def _claim(self, context: CallContext, request: Message, response_type: type[Message]) -> idempotency.Claim | None:
        request_id: str = getattr(request, "request_id")  # noqa: B009 - every mutation's request has the field
        if not request_id:
            return None
        body = type(request)()
        body.CopyFrom(request)
        body.ClearField("request_id")
        if "return_before_effective" in body.DESCRIPTOR.fields_by_name:
            body.ClearField("return_before_effective")
        secret = _holds_secret(response_type.DESCRIPTOR)
        # Those of a customer, or of a license key, are its own: knowing the id that another has used brings no stored answer.
        canonical_id = UUID(request_id).hex + (context.principal.customer_id or context.principal.license_id)
        return idempotency.Claim(context.method, canonical_id, body.SerializeToString(deterministic=True), secret)


async def _revision(tx: Transaction) -> tuple[Revision, datetime]:
    """What the transaction makes, and the record's time."""
    row = await tx.conn.fetchrow(
        f"SELECT pg_current_xact_id()::text AS xid, {EPOCH} AS epoch, clock_timestamp() AS at, "  # noqa: S608 - of constants
        "(SELECT system_identifier FROM pg_control_system()) AS system_id"
    )
    assert row is not None
    return Revision(row["system_id"], row["epoch"] or _NO_EPOCH, int(row["xid"])), row["at"]


async def _record_time(tx: Transaction) -> datetime:
    return await tx.conn.fetchval("SELECT clock_timestamp()")
