"""A mutation that is sent again with its request id is answered again, and not done again."""

from __future__ import annotations

import asyncio
from datetime import UTC, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import asyncpg
import grpc.aio
import pytest
from google.protobuf.message import Message
from lictor.account.v1 import account_service_pb2 as account
from lictor.license.v1 import catalog_service_pb2 as catalog
from lictor.license.v1 import license_service_pb2 as licenses
from lictor.machine.v1 import activation_service_pb2 as activation

from services.license.sweeper import sweep_once
from shared.crypto import sealing
from shared.db.pool import Database, PostgresTarget
from shared.db.roles import Role
from shared.tenancy import Mode
from tests.helpers.echo import refusal
from tests.helpers.record import digests, where_found
from tests.helpers.suite import Suite, World
from tests.service.test_record_calls import MUTATIONS, Case, Stage, case_of

CREATE_LICENSE = "/lictor.license.v1.LicenseService/CreateLicense"
CREATE_PRODUCT = "/lictor.license.v1.CatalogService/CreateProduct"
CREATE_KEY = "/lictor.account.v1.AccountService/CreateApiKey"
SECRETS = {"test_api_key", "live_api_key", "secret", "key", "token", "machine_secret", "file"}


@pytest.fixture(name="stage")
def _stage(suite: Suite, world: World) -> Stage:
    return Stage(suite, world)


def new_product(name: str = "P") -> Case:
    return Case(catalog.CreateProductRequest(code=uuid4().hex[:12].upper(), display_name=name), ("product.created",))


def another_body(case: Case) -> Case:
    """The same call with one free text changed."""
    request = type(case.request)()
    request.CopyFrom(case.request)
    named = request.DESCRIPTOR.fields_by_name
    if "overlap" in named:
        cast("account.RotateApiKeyRequest", request).overlap.FromSeconds(60)
    elif isinstance(request, licenses.ImportLicensesRequest):
        request.items[0].display_name = "Another"
    elif isinstance(request, activation.RenewSeatRequest):
        request.ttl.FromSeconds(30)
    else:
        setattr(request, "display_name" if "display_name" in named else "reason", "Another")
    return Case(request, case.events, case.operator)


async def reason_of(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return refusal(error.value).reason


def timeless(answer: Any) -> bytes:
    """An answer without its effective time, which is every reply's own."""
    copy = type(answer)()
    copy.CopyFrom(answer)
    copy.ClearField("effective_time")
    return copy.SerializeToString(deterministic=True)


def secrets_of(answer: Message) -> set[str]:
    """At the top, in the items of an import, or with a seat."""
    items: list[Message] = list(answer.licenses) if isinstance(answer, licenses.ImportLicensesResponse) else []
    items += [answer.granted] if isinstance(answer, activation.AcquireSeatResponse) else []
    return {value for part in (answer, *items) for field, value in part.ListFields() if field.name in SECRETS}


async def request_rows(conn: asyncpg.Connection, request_id: str) -> list[asyncpg.Record]:
    """The stored results of a request id, in every tenant."""
    return await conn.fetch(
        "SELECT * FROM record.request WHERE request_id_hash = $1", sealing.request_id_hash(UUID(request_id).hex)
    )


async def age(conn: asyncpg.Connection, request_id: str, interval: str = "24 hours 1 second") -> None:
    await conn.execute(
        "UPDATE record.request SET created_at = now() - $2::text::interval WHERE request_id_hash = $1",
        sealing.request_id_hash(UUID(request_id).hex),
        interval,
    )


@pytest.mark.parametrize("method", MUTATIONS)
async def test_a_retry_gets_the_first_answer_and_changes_nothing(stage: Stage, method: str) -> None:
    case, request_id = await case_of(stage, method), str(uuid4())
    first = await stage.send(method, case, request_id)
    async with stage.suite.admin() as admin:
        before = await digests(admin)
        again = await stage.send(method, case, request_id)
        assert await digests(admin) == before
        assert timeless(again) == timeless(first)
        assert await reason_of(stage.send(method, another_body(case), request_id)) == "REQUEST_ID_REUSED"
        assert await digests(admin) == before


@pytest.mark.parametrize("method", MUTATIONS)
async def test_results_with_secrets_are_sealed_and_the_id_is_kept_nowhere(stage: Stage, method: str) -> None:
    request_id = str(uuid4())
    answer = await stage.send(method, await case_of(stage, method), request_id)
    parts = [answer.DESCRIPTOR, *(field.message_type for field in answer.DESCRIPTOR.fields if field.message_type)]
    redacted = [field.name for part in parts for field in part.fields if field.GetOptions().debug_redact]
    async with stage.suite.admin() as admin:
        (row,) = await request_rows(admin, request_id)
        assert row["sealed"] == bool(redacted) == bool(secrets_of(answer))
        stored: bytes = row["result"]
        assert (stored == timeless(answer)) == (not row["sealed"])
        for secret in secrets_of(answer):
            assert secret.encode() not in stored
            assert secret[-8:].encode() not in stored
        assert await where_found(admin, request_id, UUID(request_id).hex) == []
        raw = UUID(request_id).bytes.hex()
        assert not [name for name in ("result", "request_id_hash", "body_hash") if raw in row[name].hex()]


async def test_no_table_has_a_key(stage: Stage) -> None:
    """The canary: every key that was ever shown or sent, in no column of no table, whatever was done with it."""
    mine, suite = stage.world.test, stage.suite
    policy_id, own_key = await stage.policy_id(), f"Custom-{uuid4().hex}"
    made = await mine.licenses.create(policy_id=policy_id)
    imported = await mine.licenses.create(policy_id=policy_id, key=own_key, customer_email="ada@example.com")
    created = await mine.api_keys.create(scopes=["keys:read"])
    rotated = await mine.api_keys.rotate(created.api_key.api_key_id)
    for key in (made.key, own_key, own_key.lower(), "UNKNOWN-" + uuid4().hex):
        await mine.validate(key=key)
    await mine.licenses.update(imported.license.license_id, display_name="x")
    assert (await mine.licenses.reveal_key(made.license.license_id)).key == made.key
    assert (await mine.licenses.reveal_key(imported.license.license_id)).key == own_key
    changed = await mine.licenses.rotate_key(made.license.license_id, overlap=timedelta(days=1))
    changed_again = await mine.licenses.rotate_key(imported.license.license_id, key=f"Another-{uuid4().hex}")
    for key in (made.key, changed.key, changed_again.key):
        await mine.validate(key=key)
    await mine.licenses.delete(made.license.license_id)
    shown = [
        stage.world.test_key, stage.world.live_key, suite.operator_key, made.key, own_key, created.secret, rotated.secret,
        changed.key, changed_again.key,
    ]  # fmt: skip
    async with suite.admin() as admin:
        assert "license.license" in await where_found(admin, imported.license.license_id), "the search finds nothing"
        for key in shown:
            assert len(key) > 20
            assert await where_found(admin, key, key[:-4], key.replace("-", "")) == []


async def test_two_calls_at_once_make_one_license(stage: Stage) -> None:
    for _ in range(5):
        case, request_id = await case_of(stage, CREATE_LICENSE), str(uuid4())
        policy_id = cast("licenses.CreateLicenseRequest", case.request).policy_id
        done = await asyncio.gather(
            *(stage.send(CREATE_LICENSE, case, request_id) for _ in range(4)), return_exceptions=True
        )
        answers = [answer for answer in done if not isinstance(answer, BaseException)]
        refused = [refusal(error).reason for error in done if isinstance(error, grpc.aio.AioRpcError)]
        assert set(refused) <= {"DUPLICATE_IN_FLIGHT"}
        assert len(answers) + len(refused) == 4
        assert len({timeless(answer) for answer in answers}) == 1
        found = [found.license_id async for found in stage.world.test.licenses.list(policy_id=policy_id)]
        assert found == [answers[0].license.license_id]


async def test_a_call_that_is_still_running_is_named(stage: Stage) -> None:
    """The first call's transaction holds the id; the second waits for it, but not for ever."""
    case, request_id = new_product(), str(uuid4())
    tenant = stage.world.tenant()
    async with stage.suite.admin() as admin:
        transaction = admin.transaction()
        await transaction.start()
        await admin.execute(
            "INSERT INTO record.request (account_id, mode, method, request_id_hash, body_hash) VALUES ($1, $2, $3, $4, '')",
            tenant.account_id, tenant.mode.value, CREATE_PRODUCT, sealing.request_id_hash(UUID(request_id).hex),
        )  # fmt: skip
        try:
            assert await reason_of(stage.send(CREATE_PRODUCT, case, request_id)) == "DUPLICATE_IN_FLIGHT"
        finally:
            await transaction.rollback()
    assert (await stage.send(CREATE_PRODUCT, case, request_id)).product.product_id


async def test_the_second_of_two_waits_for_a_first_that_fails(stage: Stage) -> None:
    case, request_id = new_product(), str(uuid4())
    tenant = stage.world.tenant()
    async with stage.suite.admin() as admin:
        transaction = admin.transaction()
        await transaction.start()
        await admin.execute(
            "INSERT INTO record.request (account_id, mode, method, request_id_hash, body_hash) VALUES ($1, $2, $3, $4, '')",
            tenant.account_id, tenant.mode.value, CREATE_PRODUCT, sealing.request_id_hash(UUID(request_id).hex),
        )  # fmt: skip
        second = asyncio.create_task(stage.send(CREATE_PRODUCT, case, request_id))
        await asyncio.sleep(0.2)
        assert not second.done()
        await transaction.rollback()
        assert (await second).product.product_id


async def test_an_answer_keeps_its_token_on_replay_and_takes_the_time_of_the_retry(stage: Stage) -> None:
    """The token marks the one write; the time must never be too early, and the first reply to COMMIT may be lost."""
    case, request_id = new_product(), str(uuid4())
    async with stage.suite.admin() as admin:
        start = await admin.fetchval("SELECT clock_timestamp()")
        first = await stage.send(CREATE_PRODUCT, case, request_id)
        other = await stage.send(CREATE_PRODUCT, new_product(), str(uuid4()))
        again = await stage.send(CREATE_PRODUCT, case, request_id)
        end = await admin.fetchval("SELECT clock_timestamp()")
    assert again.revision_token == first.revision_token != other.revision_token
    times = [answer.effective_time.ToDatetime(tzinfo=UTC) for answer in (first, other, again)]
    assert start < times[0] < times[1] < times[2] < end


async def test_an_id_is_the_same_however_it_is_written(stage: Stage) -> None:
    case, request_id = new_product(), uuid4()
    forms = [str(request_id), str(request_id).upper(), request_id.hex, request_id.hex.upper()]
    answers = [await stage.send(CREATE_PRODUCT, case, form) for form in forms]
    assert len({answer.product.product_id for answer in answers}) == 1


async def test_an_id_is_free_again_after_a_day(stage: Stage) -> None:
    case, request_id = new_product(), str(uuid4())
    first = await stage.send(CREATE_PRODUCT, case, request_id)
    async with stage.suite.admin() as admin:
        await age(admin, request_id, "23 hours 59 minutes")
        assert timeless(await stage.send(CREATE_PRODUCT, case, request_id)) == timeless(first)
        await age(admin, request_id)
        other = new_product("Other")
        second = await stage.send(CREATE_PRODUCT, other, request_id)
        assert second.product.product_id != first.product.product_id
        assert timeless(await stage.send(CREATE_PRODUCT, other, request_id)) == timeless(second)
        assert await reason_of(stage.send(CREATE_PRODUCT, case, request_id)) == "REQUEST_ID_REUSED"
        assert len(await request_rows(admin, request_id)) == 1


async def test_a_reused_id_is_sealed_anew(stage: Stage) -> None:
    request_id = str(uuid4())
    async with stage.suite.admin() as admin:
        first = await stage.send(CREATE_KEY, await case_of(stage, CREATE_KEY), request_id)
        await age(admin, request_id)
        case = await case_of(stage, CREATE_KEY)
        second = await stage.send(CREATE_KEY, case, request_id)
        (row,) = await request_rows(admin, request_id)
        assert row["sealed"]
        assert (await stage.send(CREATE_KEY, case, request_id)).secret == second.secret != first.secret


async def test_the_sweeper_deletes_old_results_of_all_tenants(suite: Suite, stage: Stage) -> None:
    async with suite.world() as other_world, suite.admin() as admin:
        stages = (stage, Stage(suite, other_world))
        old, fresh = [str(uuid4()) for _ in range(4)], str(uuid4())
        for each, mode, request_id in zip(
            (stages[0], stages[0], *stages[1:] * 2), (Mode.TEST, Mode.LIVE) * 2, old, strict=False
        ):
            await each.send(CREATE_PRODUCT, new_product(), request_id, mode=mode)
            await age(admin, request_id)
        await stage.send(CREATE_PRODUCT, new_product(), fresh)
        target = PostgresTarget(suite.settings.postgres_dsn.get_secret_value())
        async with Database.opened(target, Role.LICENSE_WORKER, size=1) as worker:
            assert await sweep_once(worker) >= 4
            for request_id in old:
                assert await request_rows(admin, request_id) == []
            assert len(await request_rows(admin, fresh)) == 1
            assert await sweep_once(worker) == 0


async def test_a_failed_call_stores_nothing(stage: Stage) -> None:
    request_id = str(uuid4())
    bad = Case(licenses.CreateLicenseRequest(policy_id="pol_unknown"), ())
    async with stage.suite.admin() as admin:
        before = await digests(admin)
        assert await reason_of(stage.send(CREATE_LICENSE, bad, request_id)) == "POLICY_NOT_FOUND"
        assert await request_rows(admin, request_id) == []
        assert await digests(admin) == before
    good = await case_of(stage, CREATE_LICENSE)
    assert (await stage.send(CREATE_LICENSE, good, request_id)).key


async def test_an_id_is_of_one_account_mode_and_method(suite: Suite, stage: Stage) -> None:
    request_id, case = str(uuid4()), new_product()
    async with suite.world() as other_world:
        answers = [
            await stage.send(CREATE_PRODUCT, case, request_id),
            await stage.send(CREATE_PRODUCT, case, request_id, mode=Mode.LIVE),
            await Stage(suite, other_world).send(CREATE_PRODUCT, case, request_id),
        ]
    assert len({answer.product.product_id for answer in answers}) == 3
    assert (await stage.send(CREATE_KEY, await case_of(stage, CREATE_KEY), request_id)).secret
    assert timeless(await stage.send(CREATE_PRODUCT, case, request_id)) == timeless(answers[0])


async def test_without_an_id_every_call_counts(stage: Stage) -> None:
    case = Case(licenses.CreateLicenseRequest(policy_id=await stage.policy_id()), ())
    async with stage.suite.admin() as admin:
        before = await admin.fetchval("SELECT count(*) FROM record.request")
        made = [await stage.send(CREATE_LICENSE, case) for _ in range(2)]
        assert made[0].key != made[1].key
        assert await admin.fetchval("SELECT count(*) FROM record.request") == before
