"""Each safeguard of the lease: with it nobody answers from the old state after a revocation has returned; without it the
old state shows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

import asyncpg
import pytest

from shared.freshness.lease import LeaseTerms
from shared.freshness.poll import Polled
from shared.freshness.tail import Tail
from shared.rpc.effects import EffectWaits
from tests.consistency.stage import Cast, Process, StageTail, process_on
from tests.helpers.record import Scratch
from tests.helpers.redis_tier import TurnedClock


async def wait_of(process: Process) -> None:
    """The wait of a call that has just committed, as a clock that is turned passes it."""
    wait_s = await process.tail.wait_s()
    assert wait_s is not None
    process.clock.at_s += wait_s


class Impatient(EffectWaits):
    """The safeguard off: nothing waits."""

    async def hold(self) -> None:
        pass


@pytest.mark.parametrize(("waits_type", "seen"), [(EffectWaits, "revoked"), (Impatient, "active")])
async def test_a_revocation_returns_when_no_lease_is_left(
    db: Scratch, cast: Cast, waits_type: type[EffectWaits], seen: str
) -> None:
    clock = TurnedClock()
    async with process_on(db, clock=clock) as one, process_on(db, clock=clock) as other:
        await cast.learned_by(one)
        await other.poll()
        await cast.revoke()
        holding = asyncio.create_task(waits_type(other.tail, clock).hold())
        await asyncio.sleep(0)
        if not holding.done():  # it waits for time, and that is what a test's clock is turned for
            assert cast.held_by(one) == "active", "nobody has told this process yet"
            clock.at_s += other.tail.state.terms.wait_s
        await holding
        assert await cast.status_by(one) == seen


class Careless(StageTail):
    """The safeguard off: memory always answers."""

    def fresh(self) -> bool:
        return self.ready


@pytest.mark.parametrize(("tail_type", "seen"), [(StageTail, "revoked"), (Careless, "active")])
async def test_who_was_stopped_wakes_up_without_a_lease(
    db: Scratch, cast: Cast, tail_type: type[Tail], seen: str
) -> None:
    async with process_on(db, tail_type=tail_type) as stopped, process_on(db) as other:
        await cast.learned_by(stopped)
        await cast.revoke()
        await wait_of(other)
        stopped.clock.at_s += other.tail.state.terms.wait_s
        assert await cast.status_by(stopped) == seen


class Generous(StageTail):
    """The safeguard off: a lease counts from when the reply was there."""

    def _lease_end(self, polled: Polled, asked_at: float) -> float:
        return self._clock.boottime() + polled.terms.lease_s


@pytest.mark.parametrize(("tail_type", "seen"), [(StageTail, None), (Generous, "active")])
async def test_a_lease_counts_from_the_question(
    db: Scratch, cast: Cast, tail_type: type[Tail], seen: str | None
) -> None:
    async with process_on(db, tail_type=tail_type) as slow:
        await cast.learned_by(slow)
        slow.source.after.shut()
        polling = asyncio.create_task(slow.poll())
        await slow.source.after.reached()  # Postgres has answered, and the answer is on its way
        await cast.revoke()
        await wait_of(slow)
        slow.source.after.open()
        await polling
        assert cast.held_by(slow) == seen


async def test_a_lease_ends_at_its_last_moment(db: Scratch, cast: Cast) -> None:
    async with process_on(db) as one:
        await cast.learned_by(one)
        end = one.tail.state.fresh_until
        one.clock.at_s = end - 1e-6
        assert one.tail.fresh()
        one.clock.at_s = end
        assert not one.tail.fresh()
        one.source.before.shut()
        asking = asyncio.create_task(cast.status_by(one))
        await one.source.before.reached()
        assert not asking.done(), "who has no lease asks first"
        one.source.before.open()
        assert await asking == "active"


@dataclass(frozen=True, slots=True)
class Forgetful(LeaseTerms):
    """The safeguard off: what L was before does not count."""

    @property
    def lease_s(self) -> float:
        return self.l_ms / 1000

    @property
    def wait_s(self) -> float:
        return self.l_ms / 1000 * 1.01 + 0.005


def sound(polled: Polled) -> Polled:
    return polled


def forgetful(polled: Polled) -> Polled:
    terms = polled.terms
    return replace(polled, terms=Forgetful(terms.l_ms, terms.previous_l_ms, terms.just_changed))


async def set_l(admin: asyncpg.Connection, l_ms: int, minutes_ago: int = 0) -> None:
    """Changes L as an owner does, or as one did some time ago."""
    if minutes_ago:
        await admin.execute("ALTER TABLE record.lease DISABLE TRIGGER lease_changes")
        await admin.execute(
            "UPDATE record.lease SET l_ms = $1, previous_l_ms = $1, changed_at = clock_timestamp() - make_interval(mins => $2)",
            l_ms, minutes_ago,
        )  # fmt: skip
        await admin.execute("ALTER TABLE record.lease ENABLE TRIGGER lease_changes")
    else:
        await admin.execute("UPDATE record.lease SET l_ms = $1", l_ms)


@pytest.mark.parametrize(("change", "seen"), [(sound, None), (forgetful, "active")])
@pytest.mark.parametrize("l_ms", [(400, 100), (100, 400)])
async def test_a_change_of_l_keeps_the_promise_while_some_do_not_know_of_it(
    db: Scratch, cast: Cast, l_ms: tuple[int, int], change: Callable[[Polled], Polled], seen: str | None
) -> None:
    """Downwards: who has not heard of it has a lease that is longer than the wait. Upwards: who has not heard of it waits
    for less than the others' leases."""
    before_ms, after_ms = l_ms
    await set_l(cast.admin, before_ms, minutes_ago=5)
    clock = TurnedClock()
    async with process_on(db, clock=clock) as validating, process_on(db, clock=clock) as revoking:
        validating.source.change = revoking.source.change = change
        await cast.learned_by(validating)
        await revoking.poll()
        await set_l(cast.admin, after_ms)
        await (revoking if before_ms > after_ms else validating).poll()  # the other one does not know
        await cast.revoke()
        await wait_of(revoking)
        assert cast.held_by(validating) == seen
    await set_l(cast.admin, 250, minutes_ago=5)


async def test_l_changes_at_most_once_a_minute(db: Scratch, cast: Cast) -> None:
    await set_l(cast.admin, 250, minutes_ago=1)
    await set_l(cast.admin, 300)
    with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match="less than 60 seconds ago"):
        await set_l(cast.admin, 350)
    await set_l(cast.admin, 250, minutes_ago=5)


async def test_who_has_lost_the_record_long_ago_does_not_know_when_a_change_holds(db: Scratch, cast: Cast) -> None:
    """L may have become longer meanwhile."""

    def away(polled: Polled) -> Polled:
        raise OSError

    async with process_on(db) as lost:
        lost.source.change = away
        lost.clock.at_s += 59
        assert await lost.tail.wait_s() == lost.tail.state.terms.wait_s
        lost.clock.at_s += 1
        assert await lost.tail.wait_s() is None


async def test_nobody_waits_for_the_polls_of_a_process_that_ends(db: Scratch) -> None:
    async with process_on(db) as one:
        one.source.before.shut()
        under_way = asyncio.create_task(one.tail.poll())
        await one.source.before.reached()
        the_next = asyncio.create_task(one.tail.poll())
        await asyncio.sleep(0)
        one.polling.cancel()
        async with asyncio.timeout(10):
            assert await asyncio.gather(under_way, the_next) == [False, False]
