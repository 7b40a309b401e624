"""One stream of licenses: a snapshot in the order of ids, then what changes, by somebody or by time.

Whatever is told is read at the record after the stream was told that it has changed, so that a change is told at least once,
and never in an older state than one that was told before the change. Nothing that was read waits for a reader: what waits
are ids (`Marks`), each once, and the groups whose licenses are looked for when their turn comes.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from lictor.common.v1.common_pb2 import View
from lictor.license.v1 import validation_service_pb2 as pb

from services.license import render, store, verdicts, watch_store
from services.license.asked import Asked
from services.license.deciding import Decided
from services.license.decision import decide
from services.license.model import License
from services.license.resources import Resources
from services.license.watch_hub import overloaded
from services.license.watch_marks import TOLD, Dues, Group, Marks, Narrowed
from shared.db.faults import record_unreachable
from shared.errors import DomainError, Reason
from shared.facts.following import KINDS
from shared.facts.license import Loaded, Wanted
from shared.freshness.resume import ResumePoint, Why, resync
from shared.freshness.tail import RETENTION_S
from shared.rpc.context import CallContext
from shared.tenancy import Principal

PAGE: Final = 50
"""Licenses that are read at once."""
MAX_RESUMED: Final = 5000
"""Things that have changed while nobody listened; where there are more, a snapshot is quicker."""
MAX_MESSAGE_BYTES: Final = 512 * 1024
"""A message with more licenses ends."""
WRITE_WITHIN_S: Final = 5.0
"""How long the caller may take to make room for a message."""
BOOKMARK_EVERY_S: Final = 5.0
BOOKMARK_AFTER_CHANGES_S: Final = 1.0
STALE_S: Final = 5.0
"""For how long the record may be silent before its streams end, so that their callers look for another process."""
RETRY_POLL_S: Final = 0.1
LOOK_S: Final = 1.0
"""How often a stream looks around where nobody tells it of anything."""
LEAST_WAIT_S: Final = 0.01
"""What is due by this process's clock may not be so yet by the record's, which is asked again."""
_NOTHING: Final = Asked(needs_machine=False)
_Kind: Final = pb.WatchLicensesResponse.Kind


@dataclass(slots=True)
class _Pass:
    """A way through all licenses.

    Attributes:
        begun: The state at its beginning.
        since: Where they were told before: only those that time has changed since are told again. None tells all.
        after: The id up to which it has come.
    """

    begun: ResumePoint
    since: datetime | None = None
    after: str = ""


async def watch(r: Resources, context: CallContext, request: pb.WatchLicensesRequest) -> None:
    """Streams until the caller leaves.

    Raises:
        DomainError: RESYNC_REQUIRED, OVERLOADED, RECORD_UNREACHABLE, and CREDENTIALS_INVALID or CALLER_NOT_ALLOWED once the
            caller may listen no more.
    """
    narrowed = Narrowed(request.product_id, request.policy_id, tuple(sorted(set(request.license_ids))))
    feed = _Feed(r, context, narrowed, with_licenses=request.view == View.BASIC)
    await feed.run(request.resume_token)


class _Feed:
    def __init__(self, r: Resources, context: CallContext, narrowed: Narrowed, *, with_licenses: bool) -> None:
        self._r = r
        self._watches = r.watches
        self._tail = r.watches.tail
        self._context = context
        self._principal = context.principal
        self._tenant = context.principal.tenant
        self._narrowed = narrowed
        self._with_licenses = with_licenses
        self._marks = Marks(narrowed)
        self._dues = Dues()
        self._pass: _Pass | None = None
        self._group: tuple[Group, str] | None = None
        self._told: ResumePoint | None = None
        """All until then was told; None before the end of a snapshot."""
        self._is_resumed = False
        """Whether an earlier stream may have told of licenses that this one knows nothing of."""
        self._has_told = False
        """Since the last bookmark."""
        self._bookmarked_at = self._time()

    async def run(self, resume_token: str) -> None:
        with self._watches.opened(self._tenant, self._marks, self._dues):
            await self._tail.poll()  # what is behind the stream's beginning by now need not be told again
            self._marks.begin()
            if resume_token:
                await self._resume(self._watches.tokens.read(self._tenant, str(self._narrowed), resume_token))
            else:
                await self._begin()
            while True:
                await self._step()

    async def _step(self) -> None:
        """A page of each thing that there is to do, so that none waits for another's end."""
        self._marks.news.clear()
        await self._may_go_on()
        if self._marks.lost:
            await self._begin()
        busy = await self._tell_changes()
        busy = await self._tell_group() or busy
        busy = await self._go_through() or busy
        if not busy:
            self._note_all_told()
        await self._bookmark()
        if not busy:
            await self._wait()

    async def _resume(self, point: ResumePoint) -> None:
        """Marks what has changed since, and goes through all for what time has changed."""
        since = await watch_store.changed_since(self._watches.facts, self._tenant, point.stamp.snapshot)
        if since.stamp is None or not point.stamp.is_of(since.stamp):
            raise resync(Why.EPOCH)
        if since.at - point.at > timedelta(seconds=RETENTION_S):
            raise resync(Why.EXPIRED)
        for full in since.keys:
            kind, _, key = full.partition(":")
            if kind in TOLD:
                self._marks.touch(kind, key.split("/", 2)[2])
        if since.too_many or len(self._marks) > MAX_RESUMED or not KINDS.issuperset(since.kinds):
            await self._begin()
            return
        self._told, self._is_resumed = point, True
        self._pass = _Pass(self._state(), point.at)

    async def _begin(self) -> None:
        """A snapshot, in place of all that was told."""
        self._marks.begin()
        self._dues.clear()
        self._group = self._told = None
        self._is_resumed = False
        self._pass = _Pass(self._state())
        await self._send(pb.WatchLicensesResponse(kind=_Kind.SNAPSHOT_BEGUN))

    async def _may_go_on(self) -> None:
        """Whether the caller keeps up, and may still listen."""
        if self._marks.overflowed:
            raise overloaded("more has changed than is kept for a caller that reads this slowly")
        while not self._tail.fresh() and not await self._tail.poll():
            if (self._tail.now() - self._tail.state.at).total_seconds() > STALE_S:
                raise record_unreachable()
            await asyncio.sleep(RETRY_POLL_S)
        ends = self._principal.expires_at
        if self._marks.doubted or (ends is not None and ends <= self._tail.now()):
            self._marks.doubted = False
            self._take_principal(await self._context.authenticate_again())

    def _take_principal(self, principal: Principal) -> None:
        if principal.tenant != self._tenant or _SCOPE not in principal.scopes:
            raise DomainError(
                Reason.CALLER_NOT_ALLOWED, f"the credential has lost the scope {_SCOPE}", metadata={"scope": _SCOPE}
            )
        self._principal = principal

    async def _tell_changes(self) -> bool:
        """A page of what was marked, and of what is due; whether there may be more."""
        ids = self._marks.take(PAGE)
        due = dict(self._dues.due(self._tail.now(), PAGE - len(ids)))
        wanted = list(dict.fromkeys((*ids, *due)))
        for marked in ids:
            due.pop(marked, None)
        await self._tell(self._reached(wanted), _Kind.DELTA, due)
        return bool(ids) or len(wanted) == PAGE

    async def _tell_group(self) -> bool:
        """A page of the licenses of a policy, a product or a customer that has changed."""
        if self._group is None:
            group = self._marks.take_group()
            if group is None:
                return False
            self._group = (group, "")
        group, after = self._group
        ids = await self._page(group, after)
        reached = self._reached(ids)
        await self._tell(reached, _Kind.DELTA)
        ended = len(ids) < PAGE or len(reached) < len(ids)
        self._group = None if ended else (group, ids[-1])
        return True

    async def _go_through(self) -> bool:
        """A page of the way through all licenses."""
        way = self._pass
        if way is None:
            return False
        ids = await self._page(None, way.after)
        if way.since is None:
            await self._tell(ids, _Kind.SNAPSHOT)
        else:
            await self._tell_aged(ids, way.since)
        self._watches.refuse_many(self._tenant)
        if len(ids) == PAGE:
            way.after = ids[-1]
            return True
        self._pass = None
        if way.since is None:
            self._told = way.begun
            self._note_all_told()
            await self._send_token(_Kind.SNAPSHOT_COMPLETE)
        return True

    def _reached(self, ids: list[str]) -> list[str]:
        """Those that a snapshot has come past: the others are told of when it comes to them."""
        way = self._pass
        return ids if way is None or way.since is not None else [one for one in ids if one <= way.after]

    async def _page(self, group: Group | None, after: str) -> list[str]:
        if self._narrowed.license_ids:
            return [one for one in self._narrowed.license_ids if one > after][:PAGE]
        async with self._watches.loads, self._r.db.transaction(self._tenant, read_only=True) as tx:
            return await watch_store.page(tx, self._narrowed, group, after, PAGE)

    async def _tell_aged(self, ids: Sequence[str], since: datetime) -> None:
        """Tells those whose verdict is another one by time alone; the others only count as told."""
        aged: list[str] = []
        for license_id, loaded in zip(ids, await self._load(ids), strict=True):
            facts = loaded.facts
            if facts is None or not self._narrowed.has(facts):
                continue
            before, now = decide(facts, _NOTHING, since), decide(facts, _NOTHING, loaded.now)
            self._dues.put(license_id, now.valid_until)
            if (before.valid, before.all_codes) != (now.valid, now.all_codes):
                aged.append(license_id)
        await self._tell(aged, _Kind.DELTA)

    async def _tell(
        self, ids: Sequence[str], kind: pb.WatchLicensesResponse.Kind.ValueType, due: dict[str, datetime] | None = None
    ) -> None:
        """Tells how licenses stand now. Those of `due` only once they are due by the record's own time."""
        if not ids:
            return
        gone: list[str] = []
        message = pb.WatchLicensesResponse(kind=kind)
        size = 0
        licenses = await self._licenses(ids) if self._with_licenses else {}
        for license_id, loaded in zip(ids, await self._load(ids), strict=True):
            facts = loaded.facts
            if facts is None or not self._narrowed.has(facts):
                if kind == _Kind.DELTA and (license_id in self._dues or self._is_resumed):
                    gone.append(license_id)
                self._dues.drop(license_id)
                continue
            verdict = decide(facts, _NOTHING, loaded.now)
            self._dues.put(license_id, verdict.valid_until)
            if due and verdict.valid_until is not None and verdict.valid_until == due.get(license_id):
                continue
            answer = verdicts.answer(Decided(loaded, verdict, facts.uses))
            if license_id in licenses:
                answer.license.CopyFrom(render.license_(licenses[license_id], loaded.now, metadata=False))
            if message.licenses and size + answer.ByteSize() > MAX_MESSAGE_BYTES:
                await self._send(message)
                message, size = pb.WatchLicensesResponse(kind=kind), 0
            message.licenses.append(answer)
            size += answer.ByteSize()
        if message.licenses:
            await self._send(message)
        if gone:
            await self._send(pb.WatchLicensesResponse(kind=_Kind.DELETED, deleted_license_ids=gone))

    async def _load(self, ids: Sequence[str]) -> list[Loaded]:
        if not ids:
            return []
        async with self._watches.loads:
            return await self._r.facts.many_recorded(self._tenant, [Wanted((), one) for one in ids], keep=False)

    async def _licenses(self, ids: Sequence[str]) -> dict[str, License]:
        async with self._watches.loads, self._r.db.transaction(self._tenant, read_only=True) as tx:
            return {found.license_id: found for found in await store.get_licenses(tx, ids)}

    def _note_all_told(self) -> None:
        """Nothing is decided on the two sides of an `await` here: what the tail's state includes was marked before it."""
        waits = len(self._marks) or self._marks.lost or self._group or self._pass or not self._watches.settled
        due = self._dues.next
        state = self._state()
        if not waits and self._told is not None and (due is None or due > state.at):
            if self._is_resumed:
                self._is_resumed, self._bookmarked_at = False, -math.inf  # it has caught up: told at once
            self._told = state

    async def _bookmark(self) -> None:
        if self._told is None or self._marks.lost:
            return
        every_s = BOOKMARK_AFTER_CHANGES_S if self._has_told and not len(self._marks) else BOOKMARK_EVERY_S
        if self._time() - self._bookmarked_at >= every_s:
            await self._send_token(_Kind.BOOKMARK)

    async def _send_token(self, kind: pb.WatchLicensesResponse.Kind.ValueType) -> None:
        assert self._told is not None
        token = self._watches.tokens.make(self._tenant, str(self._narrowed), self._told)
        await self._send(pb.WatchLicensesResponse(kind=kind, resume_token=token))
        self._bookmarked_at, self._has_told = self._time(), False

    async def _send(self, message: pb.WatchLicensesResponse) -> None:
        if self._marks.doubted or not self._tail.fresh():
            await self._may_go_on()
        try:
            async with asyncio.timeout(WRITE_WITHIN_S):
                await self._context.write(message)
        except TimeoutError:
            raise overloaded(f"the caller has made no room for a message within {WRITE_WITHIN_S:g} s") from None
        self._has_told = True

    async def _wait(self) -> None:
        """Until something changes, or is due."""
        left_s = LOOK_S
        for at in (self._dues.next, self._principal.expires_at):
            if at is not None:
                left_s = min(left_s, (at - self._tail.now()).total_seconds())
        try:
            async with asyncio.timeout(max(LEAST_WAIT_S, left_s)):
                await self._marks.news.wait()
        except TimeoutError:
            return

    def _state(self) -> ResumePoint:
        return ResumePoint(self._tail.state.stamp, self._tail.state.at)

    def _time(self) -> float:
        return asyncio.get_running_loop().time()


_SCOPE: Final = "licenses:read"
