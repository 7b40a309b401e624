"""Patterns of two accounts never overlap: the database refuses it, whoever writes, also to two who write at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from itertools import product
from typing import Literal

import asyncpg
import pytest
import pytest_asyncio

from shared.db.roles import Role
from shared.embedded.postgres import EmbeddedPostgres
from shared.tenancy import Mode, Tenant
from tests.helpers.builders import blocked_backend
from tests.helpers.record import Scratch, enter, insert, sample, scratch

ONE, TWO = Tenant("acc_one", Mode.TEST), Tenant("acc_two", Mode.LIVE)
WORDS = [word for length in (1, 2, 3) for word in product("ab", repeat=length)]
PATHS = ["/" + "/".join(word) for word in WORDS] + [
    "/" + "/".join((*word[1:], "*")) for word in WORDS if word[0] == "a"
]
"""Every exact path of one to three of two segments, and every `/*` of as many."""

SAMPLES = [[*word, *more] for word in WORDS for more in ([], ["x"], ["x", "x"])]
"""Callers enough to tell any two patterns apart."""

WAITS_WITHIN_S = 10.0


def lets_in(path: str) -> list[list[str]]:
    *segments, last = path.removeprefix("/").split("/")
    return [
        some
        for some in SAMPLES
        if (
            some == [*segments, last]
            if last != "*"
            else len(some) > len(segments) and some[: len(segments)] == segments
        )
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="db")
async def _db(postgres: EmbeddedPostgres) -> AsyncGenerator[Scratch]:
    async with scratch(postgres) as made:
        async with made.connect() as admin:
            for tenant in (ONE, TWO):
                await insert(admin, "license.account", sample(tenant, 0)["license.account"])
        yield made


async def bind(conn: asyncpg.Connection, tenant: Tenant, n: int, path: str, trust_domain: str = "d") -> None:
    """What the service does, from the beginning of a transaction on."""
    await enter(conn, tenant)
    row = sample(tenant, n)["license.workload_binding"]
    await insert(conn, "license.workload_binding", {**row, "trust_domain": trust_domain, "path": path})


async def test_the_samples_are_what_they_should_be() -> None:
    assert (len(PATHS), len(set(PATHS))) == (21, 21)
    assert sum("*" in path for path in PATHS) == 7
    assert all(lets_in(path) for path in PATHS)


async def test_two_accounts_may_hold_two_patterns_exactly_when_nobody_comes_in_by_both(db: Scratch) -> None:
    async with db.connect(Role.LICENSE) as conn:
        refused = 0
        for held, wanted in product(PATHS, PATHS):
            transaction = conn.transaction()
            await transaction.start()
            await bind(conn, ONE, 0, held)
            overlap = any(some in lets_in(wanted) for some in lets_in(held))
            try:
                await bind(conn, TWO, 1, wanted)
            except asyncpg.ExclusionViolationError as error:
                assert overlap, (held, wanted)
                assert error.constraint_name == "workload_binding_overlap"
                refused += 1
            else:
                assert not overlap, (held, wanted)
            await transaction.rollback()
        assert 21 < refused < 441


async def test_within_one_account_only_the_same_pattern_is_refused(db: Scratch) -> None:
    async with db.connect(Role.LICENSE) as conn:
        for held, wanted in product(PATHS, PATHS):
            transaction = conn.transaction()
            await transaction.start()
            await bind(conn, ONE, 0, held)
            try:
                await bind(conn, Tenant(ONE.account_id, Mode.LIVE), 1, wanted)
            except asyncpg.UniqueViolationError as error:
                assert held == wanted
                assert error.constraint_name == "workload_binding_pattern"
            else:
                assert held != wanted
            await transaction.rollback()


async def test_other_trust_domains_do_not_matter(db: Scratch) -> None:
    async with db.connect(Role.LICENSE) as conn:
        transaction = conn.transaction()
        await transaction.start()
        await bind(conn, ONE, 0, "/*")
        await bind(conn, TWO, 1, "/*", trust_domain="d.d")
        await transaction.rollback()


async def test_the_tenant_is_the_callers_own_again_after_the_look_at_all_accounts(db: Scratch) -> None:
    async with db.connect(Role.LICENSE) as conn:
        transaction = conn.transaction()
        await transaction.start()
        await bind(conn, ONE, 0, "/a")
        assert await conn.fetchval("SELECT current_setting('lictor.account_id')") == ONE.account_id
        await enter(conn, TWO)
        assert await conn.fetchval("SELECT count(*) FROM license.workload_binding") == 0
        await transaction.rollback()


async def test_a_pattern_does_not_become_one_that_overlaps(db: Scratch) -> None:
    async with db.connect(Role.LICENSE) as conn:
        transaction = conn.transaction()
        await transaction.start()
        await bind(conn, ONE, 0, "/a/*")
        await bind(conn, TWO, 1, "/b")
        with pytest.raises(asyncpg.ExclusionViolationError):
            await conn.execute("UPDATE license.workload_binding SET path = '/a/b'")
        await transaction.rollback()


@pytest.mark.parametrize(("path", "good"), [("/a", True), ("/*", True), ("a", False), ("/", False), ("/*/a", False)])
async def test_a_path_has_its_form_in_the_database_too(db: Scratch, path: str, good: bool) -> None:
    async with db.connect(Role.LICENSE) as conn:
        transaction = conn.transaction()
        await transaction.start()
        if good:
            await bind(conn, ONE, 0, path)
        else:
            with pytest.raises(asyncpg.CheckViolationError):
                await bind(conn, ONE, 0, path)
        await transaction.rollback()


@pytest.mark.parametrize("pair", [("/a/*", "/a/b"), ("/a/b", "/*"), ("/a", "/a")])
@pytest.mark.parametrize("commits", [True, False])
async def test_the_second_of_two_at_once_waits_for_the_first(db: Scratch, pair: tuple[str, str], commits: bool) -> None:
    """Neither sees the other's row when it begins."""
    async with db.connect(Role.LICENSE) as first, db.connect(Role.LICENSE) as second, db.connect() as admin:
        one, two = first.transaction(), second.transaction()
        await one.start()
        await two.start()
        await second.execute("SELECT 1")
        await bind(first, ONE, 0, pair[0])
        waiting = asyncio.create_task(bind(second, TWO, 1, pair[1]))
        try:
            async with asyncio.timeout(WAITS_WITHIN_S):
                assert await blocked_backend(first) == second.get_server_pid()
            if commits:
                await one.commit()
                with pytest.raises(asyncpg.ExclusionViolationError):
                    await waiting
            else:
                await one.rollback()
                await waiting
        finally:
            await two.rollback()
            await admin.execute("DELETE FROM license.workload_binding")


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_a_writer_that_could_not_see_what_it_waited_for_is_refused(
    db: Scratch, isolation: Literal["repeatable_read", "serializable"]
) -> None:
    async with db.connect(Role.LICENSE) as conn:
        with pytest.raises(asyncpg.InvalidTransactionStateError):
            async with conn.transaction(isolation=isolation):
                await bind(conn, ONE, 0, "/a")


async def test_writers_in_other_trust_domains_do_not_wait(db: Scratch) -> None:
    async with db.connect(Role.LICENSE) as first, db.connect(Role.LICENSE) as second:
        one, two = first.transaction(), second.transaction()
        await one.start()
        await two.start()
        await bind(first, ONE, 0, "/*")
        await second.execute("SET LOCAL lock_timeout = '1s'")
        await bind(second, TWO, 1, "/*", trust_domain="e")
        await one.rollback()
        await two.rollback()
