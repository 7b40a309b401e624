"""Every mutation leaves its events, in the transaction of the change, numbered without gaps, and without a key."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid4

import asyncpg
import grpc.aio
import pytest
import pytest_asyncio
from lictor import AlreadyExists, LictorError
from lictor.license.v1 import catalog_service_pb2 as catalog

from services.license.account_model import Account, AccountStatus
from services.license.events import event_data
from shared.crypto import sealing
from shared.db.outbox import Event, emit
from shared.db.pool import Database, PostgresTarget
from shared.db.roles import Role
from shared.events.registry import EVENTS, faults_of
from tests.helpers.events import envelope
from tests.helpers.record import digests
from tests.helpers.suite import Suite, World
from tests.service.test_record_calls import MUTATIONS, Case, Stage, case_of

SOME_DATA = event_data(Account("acc_1", None, "Acme", AccountStatus.ACTIVE, 1, datetime.now(UTC), datetime.now(UTC)))
FORBIDDEN_FIELDS = {"hint", "key_hint", "key", "key_hash", "secret", "test_api_key", "live_api_key"}


class RollBackError(Exception):
    """What makes a transaction of these tests roll back."""


@pytest.fixture(name="stage")
def _stage(suite: Suite, world: World) -> Stage:
    return Stage(suite, world)


@pytest_asyncio.fixture(loop_scope="session", name="db")
async def _db(suite: Suite) -> AsyncGenerator[Database]:
    target = PostgresTarget(suite.settings.postgres_dsn.get_secret_value())
    async with Database.opened(target, Role.LICENSE, size=2) as db:
        yield db


async def ids(admin: asyncpg.Connection) -> set[str]:
    return {row[0] for row in await admin.fetch("SELECT event_id FROM record.event")}


def names_of(data: Any) -> set[str]:
    """Every name of a field, at whatever depth."""
    if isinstance(data, dict):
        fields = cast("dict[str, Any]", data)
        return set(fields).union(*(names_of(value) for value in fields.values()))
    if isinstance(data, list):
        return set[str]().union(*(names_of(value) for value in cast("list[Any]", data)))
    return set()


def values_of(data: Any) -> list[Any]:
    if isinstance(data, dict):
        return [value for part in cast("dict[str, Any]", data).values() for value in values_of(part)]
    if isinstance(data, list):
        return [value for part in cast("list[Any]", data) for value in values_of(part)]
    return [data]


async def refuse_gaps(admin: asyncpg.Connection) -> None:
    """Fails unless every subject's events are numbered 1, 2, ... and its counter stands at the last."""
    gaps = await admin.fetch(
        "SELECT subject FROM record.event AS e FULL JOIN record.subject AS s USING (account_id, mode, subject) "
        "GROUP BY account_id, mode, subject "
        "HAVING array_agg(subject_seq ORDER BY subject_seq) <> array(SELECT generate_series(1, max(s.seq))) "
        "OR max(s.seq) IS NULL OR count(subject_seq) = 0"
    )
    assert gaps == []


@pytest.mark.parametrize("method", MUTATIONS)
async def test_a_mutation_leaves_its_events_in_its_own_transaction(stage: Stage, method: str) -> None:
    case, request_id = await case_of(stage, method), str(uuid4())
    async with stage.suite.admin() as admin:
        before = await ids(admin)
        answer = await stage.send(method, case, request_id)
        new = await admin.fetch(
            "SELECT e.*, e.xmin::text AS xid, o.xmin::text AS outbox_xid FROM record.event AS e "
            "LEFT JOIN record.outbox AS o USING (account_id, mode, event_id) WHERE NOT e.event_id = ANY ($1)",
            list(before),
        )
        assert Counter(row["type"] for row in new) == Counter(case.events)
        stored = await admin.fetchval(
            "SELECT xmin::text FROM record.request WHERE request_id_hash = $1",
            sealing.request_id_hash(UUID(request_id).hex),
        )
        assert {row["xid"] for row in new} == {row["outbox_xid"] for row in new} == ({stored} if case.events else set())
        actor = (await stage.world.test.whoami()).key_id
        for row in new:
            assert list(faults_of(envelope(row))) == []
            assert row["source"] == "api"
            assert row["actor"].startswith("opk_") if case.operator else row["actor"] == actor
            assert row["reason"] == getattr(case.request, "reason", "") or row["type"].endswith(".created")
            if not case.operator:
                assert (row["account_id"], row["mode"]) == (stage.world.account_id, "TEST")
            elif row["type"].startswith("account."):
                assert (row["account_id"], row["mode"]) == (row["subject"], "LIVE")
            assert abs((datetime.now(UTC) - row["occurred_at"]).total_seconds()) < 60
            assert not names_of(row["data"]) & FORBIDDEN_FIELDS
            hints = {_hint(part) for part in (answer, *_messages(answer))} - {""}
            assert not hints & set(map(str, values_of(row["data"])))
            for secret in _secrets(answer):
                assert secret not in json.dumps(row["data"])
        await refuse_gaps(admin)


def _messages(answer: Any) -> list[Any]:
    return [value for field, value in answer.ListFields() if field.message_type is not None]


def _hint(message: Any) -> str:
    return getattr(message, "key_hint", "") or getattr(message, "hint", "")


def _secrets(answer: Any) -> list[str]:
    return [value for field, value in answer.ListFields() if field.GetOptions().debug_redact]


BESIDE = {
    "seat.queued", "seat.expired",
    "process.created", "process.deleted", "process.heartbeat.dead", "process.rejected",
    "machine.activation_rejected", "machine.heartbeat.started", "machine.heartbeat.dead", "machine.heartbeat.resurrected",
}  # fmt: skip
"""What calls make that change nothing else, or are no mutations of the contract."""
OF_FILES = {"license.checked_out", "machine.checked_out"}
OF_TIME = {event.name for event in EVENTS.values() if event.also} - OF_FILES
"""What no call makes but a worker, when its time has come: tests of the workers see each of them."""


async def test_every_registered_event_is_made_by_some_call(stage: Stage) -> None:
    made: set[str] = set()
    for method in MUTATIONS:
        made |= set((await case_of(stage, method)).events)
    assert made == EVENTS.keys() - OF_TIME - BESIDE
    assert len(OF_TIME) == 6


async def test_an_event_tells_the_subject_as_it_is_afterwards(stage: Stage) -> None:
    license_id = await stage.license_id()
    await stage.world.test.licenses.suspend(license_id, reason="unpaid")
    async with stage.suite.admin() as admin:
        rows = await admin.fetch("SELECT * FROM record.event WHERE subject = $1 ORDER BY subject_seq", license_id)
    assert [(row["type"], row["data"]["status"], row["data"]["revision"], row["reason"]) for row in rows] == [
        ("license.created", "active", 1, ""),
        ("license.suspended", "suspended", 2, "unpaid"),
    ]
    assert all(row["data"]["license_id"] == license_id for row in rows)


async def test_twenty_updates_at_once_are_numbered_without_a_gap(stage: Stage) -> None:
    mine, license_id = stage.world.test.licenses, await stage.license_id()
    await asyncio.gather(*(mine.update(license_id, display_name=f"name {n}") for n in range(20)))
    async with stage.suite.admin() as admin:
        rows = await admin.fetch(
            "SELECT subject_seq, data FROM record.event WHERE subject = $1 ORDER BY subject_seq", license_id
        )
    assert [row["subject_seq"] for row in rows] == list(range(1, 22))
    assert [row["data"]["revision"] for row in rows] == list(range(1, 22))
    assert len({row["data"]["display_name"] for row in rows}) == 21


async def test_refusals_leave_no_trace(stage: Stage) -> None:
    mine = stage.world.test
    product = (await mine.products.create(code="REFUSE", display_name="P", external_id="mine")).product
    other_id = await stage.product_id()
    policy_id = await stage.policy_id()
    license_id = (await mine.licenses.create(policy_id=policy_id)).license.license_id
    await mine.licenses.revoke(license_id)
    async with stage.suite.admin() as admin:
        before = await digests(admin)
        refusals = [
            (mine.products.update(product.product_id, display_name="x", etag="r99"), "ETAG_MISMATCH"),
            (mine.products.create(code="REFUSE", display_name="x"), "CODE_TAKEN"),
            (mine.products.update(other_id, external_id="mine"), "EXTERNAL_ID_TAKEN"),
            (mine.policies.delete(policy_id), "RESOURCE_IN_USE"),
            (mine.licenses.suspend(license_id), "STATE_TRANSITION_INVALID"),
            (mine.licenses.create(policy_id=policy_id, customer_id="cus_1"), "CUSTOMER_NOT_FOUND"),
            (mine.licenses.suspend("lic_unknown"), "LICENSE_NOT_FOUND"),
            (mine.api_keys.create(scopes=["nope"]), "FIELD_INVALID"),
            (mine.accounts.suspend(stage.world.account_id), "CALLER_NOT_ALLOWED"),
        ]
        for call, reason in refusals:
            with pytest.raises(LictorError) as refusal:
                await call
            assert refusal.value.reason == reason
            assert await digests(admin) == before, reason


async def test_a_call_that_fails_at_its_last_statement_leaves_no_customer(stage: Stage) -> None:
    """The customer and its event are written before the license turns out to be impossible."""
    policy_id, email = await stage.policy_id(), f"{uuid4().hex}@example.com"
    await stage.world.test.licenses.create(policy_id=policy_id, external_id="once")
    async with stage.suite.admin() as admin:
        before = await digests(admin)
        with pytest.raises(AlreadyExists, match="EXTERNAL_ID_TAKEN"):
            await stage.world.test.licenses.create(policy_id=policy_id, external_id="once", customer_email=email)
        assert await digests(admin) == before


async def test_a_number_is_given_again_when_its_transaction_is_lost(stage: Stage, db: Database) -> None:
    event = Event("account.created", f"acc_{uuid4().hex}", SOME_DATA, "test")
    tenant = stage.world.tenant()
    async with db.transaction(tenant) as tx:
        assert await emit(tx, event) == 1
    with pytest.raises(RollBackError):
        async with db.transaction(tenant) as tx:
            assert await emit(tx, event) == 2
            raise RollBackError
    async with db.transaction(tenant) as tx:
        assert (await emit(tx, event), await emit(tx, event)) == (2, 3)
    async with stage.suite.admin() as admin:
        await refuse_gaps(admin)


@pytest.mark.parametrize("name", ["license.exploded", "license", "", "License.created"])
async def test_an_event_outside_the_registry_is_refused(stage: Stage, db: Database, name: str) -> None:
    async with stage.suite.admin() as admin:
        before = await digests(admin)
        with pytest.raises(ValueError, match="is not in the registry of events"):
            async with db.transaction(stage.world.tenant()) as tx:
                await emit(tx, Event(name, "lic_1", {}, "test"))
        assert await digests(admin) == before


async def test_subjects_of_two_tenants_are_numbered_apart(suite: Suite, stage: Stage, db: Database) -> None:
    event = Event("account.created", "acc_shared", SOME_DATA, "test")
    async with suite.world() as other:
        for tenant in (stage.world.tenant(), other.tenant()):
            async with db.transaction(tenant) as tx:
                assert await emit(tx, event) == 1


async def test_without_a_tenant_nothing_is_emitted(stage: Stage) -> None:
    """A wrong credential gets no further than its refusal."""
    bad = Case(catalog.CreateProductRequest(code="NOBODY", display_name="x"), ())
    async with stage.suite.admin() as admin:
        before = await digests(admin)
        for key in ("sk_test_unknown", stage.world.test_key[:-1] + "!"):
            world = World(stage.world.account_id, key, key, stage.world.test, stage.world.live)
            with pytest.raises(grpc.aio.AioRpcError, match="UNAUTHENTICATED"):
                await Stage(stage.suite, world).send("/lictor.license.v1.CatalogService/CreateProduct", bad)
        assert await digests(admin) == before
