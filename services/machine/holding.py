"""One stream that holds a seat: it comes to it, says that it has it, and ends when it has it no more."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

import asyncpg
from lictor.machine.v1 import activation_service_pb2 as pb

from services.machine import render, seat_store, terms_store
from services.machine.answers import grant, holder, ticket
from services.machine.commands.acquire_seat import Acquired, acquire_seat
from services.machine.commands.renew_seat import renew_seat
from services.machine.commands.take_seat import NoSeatError
from services.machine.errors import taken
from services.machine.holds import Hold
from services.machine.leases import held_for, seat_lost
from services.machine.queueing import MOST_WAIT_S, await_turn
from services.machine.refusals import tell_refusal
from services.machine.resources import Resources
from shared.db.faults import record_unreachable
from shared.db.pool import Transaction
from shared.errors import DomainError, Reason
from shared.ids import Prefix, new_id
from shared.rpc.context import CallContext

RETRY_AFTER_MS = 5000
WRITE_WITHIN_S = 5.0
"""How long the caller may take to make room for a message: one that does not read holds nothing."""


async def hold_seat(
    r: Resources, request: pb.HoldSeatRequest, context: CallContext, license_id: str, grace: timedelta
) -> None:
    """Streams until the seat is lost or the caller leaves."""
    holding = _Holding(r, request, context, license_id, grace)
    await holding.run()


class _Holding:
    def __init__(
        self, r: Resources, request: pb.HoldSeatRequest, context: CallContext, license_id: str, grace: timedelta
    ) -> None:
        self._r = r
        self._request = request
        self._context = context
        self._tenant = context.principal.tenant
        self._license_id = license_id
        self._lasts = held_for(grace)
        self._holder = new_id(Prefix.CALL)

    async def run(self) -> None:
        answer = await self._resumed() if self._request.resume_token else await self._acquired()
        machine = answer.granted.machine
        with self._r.news.of(self._tenant, "machine", machine.machine_id) as told:
            hold = Hold(
                self._tenant, self._license_id, machine.machine_id, machine.lease.epoch, self._holder, self._lasts,
                render.moment(machine.lease.expire_time), told,
            )  # fmt: skip
            with self._r.holds.opened(hold):
                await self._send(answer)
                await self._keep(hold)

    async def _keep(self, hold: Hold) -> None:
        loop = asyncio.get_running_loop()
        while True:
            left_s = hold.good_until - loop.time()
            if left_s <= 0:
                raise record_unreachable()  # nobody knows; whoever comes again is told
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await hold.told.wait()
            hold.told.clear()
            if hold.lost is not None:
                raise hold.lost
            if not hold.renewed:
                self._r.holds.ask(hold)
                continue
            hold.renewed = False
            await self._context.authenticate_again()
            await self._send(pb.HoldSeatResponse(keepalive=render.lease_of(hold.epoch, hold.expires_at)))

    async def _resumed(self) -> pb.HoldSeatResponse:
        machine_id, epoch = self._r.secrets.resumed(self._tenant, self._request.resume_token)
        async with self._r.db.transaction(self._tenant) as tx:
            machine = await renew_seat(tx, machine_id=machine_id, epoch=epoch, ttl=self._lasts)
            if machine.license_id != self._license_id:
                raise seat_lost(machine_id, epoch)
            await seat_store.set_holder(tx, machine_id, self._holder)
            terms = await terms_store.terms_of(tx, self._license_id)
            seats = await seat_store.get_seats(tx, self._license_id)
            assert terms is not None  # the renewal has looked at them
            return self._granted(Acquired(machine, terms, seats, True, False, ()), tx)

    async def _acquired(self) -> pb.HoldSeatResponse:
        wanted, position = holder(self._r, self._request, self._context), 0
        actor = self._context.principal.key_id
        while True:
            try:
                async with self._r.db.transaction(self._tenant) as tx:
                    made = await acquire_seat(
                        tx, actor=actor, license_id=self._license_id, wanted=wanted, ttl=self._lasts
                    )
                    if isinstance(made, Acquired):
                        await seat_store.set_holder(tx, made.machine.machine_id, self._holder)
                        answer = self._granted(made, tx)
                    else:
                        answer = pb.HoldSeatResponse(queued=ticket(made))
            except NoSeatError as refusal:
                await tell_refusal(self._r, self._context.principal, self._license_id, refusal)
                raise
            except asyncpg.IntegrityConstraintViolationError as error:
                meant = taken(error.constraint_name or "")
                if meant is None:
                    raise
                raise meant from error
            if isinstance(made, Acquired):
                if made.evicted:
                    await self._r.waits.hold()
                return answer
            if answer.queued.position != position:
                position = answer.queued.position
                await self._send(answer)
            await self._context.authenticate_again()
            await await_turn(self._r, self._context, self._license_id, wanted, MOST_WAIT_S)

    def _granted(self, made: Acquired, tx: Transaction) -> pb.HoldSeatResponse:
        machine = made.machine
        token = self._r.secrets.resume_token(self._tenant, machine.machine_id, machine.lease_epoch or 0)
        return pb.HoldSeatResponse(granted=grant(self._r, self._context, made, tx), resume_token=token)

    async def _send(self, message: pb.HoldSeatResponse) -> None:
        try:
            async with asyncio.timeout(WRITE_WITHIN_S):
                await self._context.write(message)
        except TimeoutError:
            why = f"the caller has made no room for a message within {WRITE_WITHIN_S:g} s"
            raise DomainError(Reason.OVERLOADED, why, retry_after_ms=RETRY_AFTER_MS) from None
