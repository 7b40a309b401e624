"""Waiting for a seat, outside of any transaction: whoever waits asks for its turn when something has changed."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from services.machine import seat_store, terms_store, wait_store
from services.machine.commands.take_seat import NewMachine
from services.machine.resources import Resources
from services.machine.seats import within
from services.machine.wait_store import PATIENCE
from shared.db.pool import Transaction
from shared.rpc.context import CallContext
from shared.rules.machine_terms import MachineLeasing, SeatAcquire
from shared.rules.seats import cap

MOST_WAIT_S: Final = 20.0
LOOK_S: Final = 1.0
"""How often who waits looks where nobody tells: a lease that is over, and a place that has lapsed, tell of nothing."""
KEEP_EVERY_S: Final = PATIENCE.total_seconds() / 3
LEFT_S: Final = 1.0
"""What is left of the call's time for its answer."""


async def is_turn(tx: Transaction, license_id: str, wanted: NewMachine) -> bool:
    """Whether there may be a seat by now for who waits, or is to be asked whether it waits; only an attempt tells."""
    terms = await terms_store.terms_of(tx, license_id)
    if terms is None or terms.seat_acquire is not SeatAcquire.QUEUE:
        return True
    most = cap(terms.limit("max_machines"), terms.overage_strategy)
    if most is None:
        return True
    hashes, user_id = wanted.identity.identity_hashes, within(terms, wanted.user_id)
    taken = await seat_store.count_held(
        tx, license_id, user_id if terms.machine_leasing is MachineLeasing.PER_USER else None
    )
    return taken + await wait_store.ahead_of(tx, license_id, hashes, user_id) < most


async def await_turn(r: Resources, context: CallContext, license_id: str, wanted: NewMachine, wait_s: float) -> bool:
    """Waits until there may be a seat for who has a place already, and keeps the place; false where the time is over before."""
    loop, tenant = asyncio.get_running_loop(), context.principal.tenant
    until = loop.time() + min(wait_s, context.remaining_s() - LEFT_S)
    kept_at = loop.time()
    with r.news.of(tenant, "seats", license_id) as news:
        while not context.done():
            news.clear()
            async with r.db.transaction(tenant) as tx:
                if await is_turn(tx, license_id, wanted):
                    return True
                if loop.time() - kept_at >= KEEP_EVERY_S:
                    await wait_store.keep(tx, license_id, wanted.identity.identity_hashes)
                    kept_at = loop.time()
            left_s = until - loop.time()
            if left_s <= 0:
                return False
            with suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_S, left_s)):
                    await news.wait()
    return False
