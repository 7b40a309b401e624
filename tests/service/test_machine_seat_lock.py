"""Who comes to the seats of a license waits for who was there before, whether the seats were open or are opened just then; and
comes to them in few round trips."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from services.machine import seat_store
from services.machine.commands.activate_machine import activate_machine
from services.machine.commands.take_seat import NewMachine
from services.machine.identities import Identity
from services.machine.model import IdentityKind
from shared.crypto.fingerprints import PLAIN
from shared.db.pool import Database, PostgresTarget, read_passwords
from shared.db.roles import Role
from shared.errors import DomainError
from shared.facts.machines import SeatsValue
from tests.helpers.builders import open_shop
from tests.helpers.serving import until
from tests.helpers.suite import Suite, World

STATEMENTS = 6
"""Of a first activation beside those of its transaction and of its stored answer: what the license says, the seats, what it
says by then, who is known, the rows, and the event."""
_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%machine.seat%'"


@pytest_asyncio.fixture(loop_scope="session", name="db")
async def _db(suite: Suite) -> AsyncGenerator[Database]:
    target = PostgresTarget(
        suite.settings.postgres_dsn.get_secret_value(), read_passwords(suite.settings.postgres_password_file)
    )
    async with Database.opened(target, Role.MACHINE) as db:
        yield db


def new_machine(**more: Any) -> NewMachine:
    return NewMachine(Identity(IdentityKind.FINGERPRINT, {PLAIN: [uuid4().bytes]}), **more)


class GivenUpError(Exception):
    """A transaction ends without a trace."""


def uncounted() -> None:
    """In place of a shipped key's rate."""


@pytest.mark.parametrize("opened", ["long before", "just now", "and given up"])
async def test_who_comes_second_waits_and_sees_what_the_first_has_made(
    suite: Suite, world: World, db: Database, opened: str
) -> None:
    license_id = (await (await open_shop(world.test, max_machines=1)).issue()).license.license_id
    if opened == "long before":
        async with db.transaction(world.tenant()) as tx:
            await seat_store.lock_seats(tx, license_id)

    async def second() -> SeatsValue:
        async with db.transaction(world.tenant()) as tx:
            return await seat_store.lock_seats(tx, license_id)

    async with suite.admin() as admin:

        async def waits() -> bool:
            return await admin.fetchval(_WAITING) == 1

        waiting: list[asyncio.Task[SeatsValue]] = []
        with suppress(GivenUpError):
            async with db.transaction(world.tenant()) as tx:
                await activate_machine(tx, actor="key_1", license_id=license_id, wanted=new_machine(), count=uncounted)
                waiting.append(asyncio.create_task(second()))
                await until(waits)
                if opened == "and given up":
                    raise GivenUpError
        assert (await waiting[0]).machines == (0 if opened == "and given up" else 1)


async def test_of_many_at_seats_that_nobody_has_opened_one_finds_room(world: World, db: Database) -> None:
    shop = await open_shop(world.test, max_machines=1)
    for _ in range(10):
        license_id = (await shop.issue()).license.license_id

        async def come(license_id: str = license_id) -> bool:
            try:
                async with db.transaction(world.tenant()) as tx:
                    await activate_machine(
                        tx, actor="key_1", license_id=license_id, wanted=new_machine(), count=uncounted
                    )
            except DomainError:
                return False
            return True

        assert sum(await asyncio.gather(*(come() for _ in range(8)))) == 1


async def test_what_an_activation_answers_is_what_the_record_counts(world: World, db: Database) -> None:
    """Also of the second machine of a user, who counts once."""
    shop = await open_shop(world.test, max_machines=9)
    issued = await shop.issue(customer_email="ada@example.com")
    license_id, user_id = issued.license.license_id, issued.license.customer_id
    has = {"cores": 4, "memory_bytes": 2**33, "disk_bytes": 2**40}
    for wanted, users in (({}, 0), (has | {"user_id": user_id}, 1), (has | {"user_id": user_id}, 1), (has, 1)):
        async with db.transaction(world.tenant()) as tx:
            made = await activate_machine(
                tx, actor="key_1", license_id=license_id, wanted=new_machine(**wanted), count=uncounted
            )
            assert await seat_store.get_seats(tx, license_id) == made.seats
            assert made.seats.users == users


async def test_a_first_activation_takes_few_round_trips(world: World, db: Database) -> None:
    shop = await open_shop(world.test)
    asked: list[str] = []
    async with db.transaction(world.tenant()) as tx:
        for _ in range(2):  # what a connection asks but once does not count
            license_id = (await shop.issue()).license.license_id
            asked.clear()
            with tx.conn.query_logger(lambda query: asked.append(query.query)):
                await activate_machine(tx, actor="key_1", license_id=license_id, wanted=new_machine(), count=uncounted)
    assert len(asked) == STATEMENTS, asked
