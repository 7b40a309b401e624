"""What tests of the license service need: calls by request message, a shop to issue from, and a look at every row."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast
from uuid import uuid4

import asyncpg
import grpc
import grpc.aio
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from lictor import AsyncLictor
from lictor.account.v1 import account_service_pb2
from lictor.common.v1 import options_pb2
from lictor.license.v1 import (
    catalog_service_pb2,
    customer_service_pb2,
    license_service_pb2,
    token_service_pb2,
    validation_service_pb2,
)
from lictor.license.v1.catalog_service_pb2 import Policy, Product
from lictor.license.v1.license_service_pb2 import CreateLicenseResponse
from lictor.machine.v1 import activation_service_pb2, machine_service_pb2

from shared.rpc.status import DETAILS_KEY
from tests.helpers.echo import Refusal, as_is, refusal
from tests.helpers.lease import lease_passes
from tests.helpers.suite import Suite, World, bearer

FILES: Final = tuple(
    module.DESCRIPTOR
    for module in (
        account_service_pb2,
        catalog_service_pb2,
        customer_service_pb2,
        license_service_pb2,
        token_service_pb2,
        validation_service_pb2,
        activation_service_pb2,
        machine_service_pb2,
    )
)
METHODS: Final[dict[str, MethodDescriptor]] = {
    method.input_type.full_name: method
    for file in FILES
    for service in file.services_by_name.values()
    for method in service.methods
}
"""Every method of the suite by its request's full name."""

_LIFE_OF_A_LICENSE: Final = """
               suspend    reinstate  renew      revoke   ban     change_tier  change_policy  transfer   update     rotate_key
    active     suspended  -          active     revoked  banned  active       active         active     active     active
    suspended  -          active     suspended  revoked  banned  suspended    suspended      suspended  suspended  suspended
    expired    -          active     active     revoked  banned  expired      expired        expired    expired    expired
    revoked    -          -          -          -        -       -            -              -          -          -
    banned     -          -          -          -        -       -            -              -          -          -
"""
_USE_OF_A_LICENSE: Final = """
               check_in   increment_uses  decrement_uses  reset_uses  delete
    active     active     active          active          active      gone
    suspended  -          -               suspended       suspended   gone
    expired    -          -               expired         expired     gone
    revoked    -          -               -               -           gone
    banned     -          -               -               -           gone
"""


def table(text: str) -> dict[tuple[str, str], str]:
    """(row, column) -> cell of a table in words; a dash is a pair that is refused."""
    head, *rows = [line.split() for line in text.strip().splitlines()]
    return {(row[0], column): cell for row in rows for column, cell in zip(head, row[1:], strict=True)}


LIFE: Final = table(_LIFE_OF_A_LICENSE) | table(_USE_OF_A_LICENSE)
"""The life of a license as the design tells it: effective status and action -> effective status."""


def rules_of(method: MethodDescriptor) -> options_pb2.MethodRules:
    return method.GetOptions().Extensions[options_pb2.rules]


def path_of(method: MethodDescriptor) -> str:
    assert method.containing_service is not None
    return f"/{method.containing_service.full_name}/{method.name}"


def request_class(method: MethodDescriptor) -> type[Message]:
    return message_factory.GetMessageClass(method.input_type)


def probe(method: MethodDescriptor) -> Message:
    """A request that ends by itself: an empty one, but for a stream without an end, where it names a view that there is not."""
    request = request_class(method)()
    if rules_of(method).endless and "view" in request.DESCRIPTOR.fields_by_name:
        setattr(request, "view", 99)  # noqa: B010 - requests that have it have no type in common
    return request


async def send_raw(suite: Suite, method: MethodDescriptor, raw: bytes, key: str, timeout_s: float = 10.0) -> Any:
    """Calls a method with bytes; its answer as a message."""
    answer = message_factory.GetMessageClass(method.output_type)
    call = suite.channel.unary_unary(path_of(method), as_is, answer.FromString)
    return await call(raw, timeout=timeout_s, metadata=grpc.aio.Metadata(*bearer(key)))


async def send(suite: Suite, request: Message, key: str, timeout_s: float = 10.0) -> Any:
    """Calls the method that takes this request. Nothing is checked or retried on the way, unlike with the client."""
    method = METHODS[cast("Descriptor", request.DESCRIPTOR).full_name]
    return await send_raw(suite, method, request.SerializeToString(), key, timeout_s)


async def refused_by(call: Awaitable[Any]) -> Refusal:
    """The refusal that a raw call ends with; it has exactly one ErrorInfo and one RequestInfo."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        found = refusal(error)
        assert found.info.domain == "lictor.dev"
        assert found.request_id.startswith("call_")
        return found
    raise AssertionError(f"the call was answered: {answer!r}")


async def refused(suite: Suite, request: Message, key: str) -> Refusal:
    """The refusal of a request."""
    return await refused_by(send(suite, request, key))


async def refused_for_time(attempt: Callable[[], Awaitable[Any]], tries: int = 300) -> Refusal:
    """The server's own refusal of a call with little time; repeated where the caller's clock wins the race home."""
    for _ in range(tries):
        try:
            answer = await attempt()
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            trailers = dict(cast("Sequence[tuple[str, Any]]", error.trailing_metadata() or ()))
            if DETAILS_KEY in trailers:
                return refusal(error)
        else:
            raise AssertionError(f"the call was answered in time: {answer!r}")
    raise AssertionError("the server never refused")


def at(moment: datetime) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(moment)
    return made


def ago(**units: float) -> datetime:
    """Whole seconds, so that a moment looks the same wherever it has been."""
    return datetime.now(UTC).replace(microsecond=0) - timedelta(**units)


def ahead(**units: float) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(**units)


def assert_same(again: Any, first: Any) -> None:
    """A retry's answer is the first one's, but for the time from which on it is known to hold."""
    assert again.effective_time.ToNanoseconds() >= first.effective_time.ToNanoseconds()
    stamped = type(first)()
    stamped.CopyFrom(first)
    stamped.effective_time.CopyFrom(again.effective_time)
    assert again == stamped


@dataclass(frozen=True)
class Shop:
    """A product with one policy, to issue licenses from."""

    client: AsyncLictor
    product: Product
    policy: Policy

    async def issue(self, **more: Any) -> CreateLicenseResponse:
        return await self.client.licenses.create(policy_id=self.policy.policy_id, **more)

    async def issue_in(self, status: str) -> CreateLicenseResponse:
        """A license whose effective status is `status`."""
        if status == "expired":
            return await self.issue(start_time=ago(hours=2), expire_time=ago(hours=1))
        made = await self.issue(expire_time=ahead(days=10))
        licenses = self.client.licenses
        change = {"suspended": licenses.suspend, "revoked": licenses.revoke, "banned": licenses.ban}.get(status)
        if change is not None:
            await change(made.license.license_id)
        return made


async def open_shop(client: AsyncLictor, code: str = "SHOP", key_storage: str = "SEALED", **terms: Any) -> Shop:
    """A desktop policy of 30 days that asks for no machine, unless `terms` say otherwise."""
    product = (await client.products.create(code=code, display_name="Shop", key_storage=key_storage)).product
    chosen: dict[str, Any] = {
        "template": "desktop_app",
        "duration": timedelta(days=30),
        "require_fingerprint": False,
        **terms,
    }
    policy = (await client.policies.create(product_id=product.product_id, display_name="Policy", **chosen)).policy
    return Shop(client, product, policy)


async def key_with(client: AsyncLictor, *scopes: str) -> str:
    """A new secret key with just these scopes."""
    return (await client.api_keys.create(scopes=scopes)).secret


Rows = dict[str, list[str]]


async def rows(suite: Suite, *account_ids: str) -> Rows:
    """Every row of every table that names an account, as text: licenses, events, outbox, stored requests and all."""
    async with suite.admin() as conn:
        tables = await conn.fetch(
            "SELECT c.oid::regclass::text AS name FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid "
            "JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND a.attname = 'account_id' "
            "AND n.nspname IN ('record', 'license', 'entitlement', 'machine', 'webhook')"
        )
        union = " UNION ALL ".join(
            f"SELECT '{name}' AS name, t::text AS row FROM {name} AS t WHERE account_id = ANY ($1)"
            for name in (found["name"] for found in tables)
        )
        found: Rows = {}
        for row in await conn.fetch(union + " ORDER BY 1, 2", list(account_ids)):
            found.setdefault(row["name"], []).append(row["row"])
        assert found, "no such account"
        return found


@asynccontextmanager
async def unchanged(suite: Suite, *worlds: World) -> AsyncGenerator[None]:
    """Fails when any row of these accounts, or of the operator, is another one in the end."""
    ids = [world.account_id for world in worlds]
    before = await rows(suite, "operator", *ids)
    yield
    assert await rows(suite, "operator", *ids) == before


async def events(suite: Suite, subject: str) -> list[asyncpg.Record]:
    """The events of one subject, first to last."""
    async with suite.admin() as conn:
        return await conn.fetch(
            "SELECT e.*, EXISTS (SELECT 1 FROM record.outbox AS o WHERE o.event_id = e.event_id) AS in_outbox "
            "FROM record.event AS e WHERE subject = $1 ORDER BY subject_seq",
            subject,
        )


async def shift(suite: Suite, table_name: str, id_column: str, resource_id: str, **columns: datetime) -> None:
    """Moves times of one row, which no call can do: how time passes for a test."""
    async with suite.admin() as conn:
        pairs = ", ".join(f"{name} = ${n}" for n, name in enumerate(columns, start=2))
        done = await conn.execute(
            f"UPDATE {table_name} SET {pairs} WHERE {id_column} = $1", resource_id, *columns.values()
        )
        assert done == "UPDATE 1"
    await lease_passes()


@asynccontextmanager
async def held(suite: Suite, statement: str, *arguments: object) -> AsyncGenerator[asyncpg.Connection]:
    """Runs a locking statement and keeps its locks while the block runs; its changes are undone."""
    async with suite.admin() as conn:
        transaction = conn.transaction()
        await transaction.start()
        try:
            await conn.execute(statement, *arguments)
            yield conn
        finally:
            await transaction.rollback()


async def blocked_backend(conn: asyncpg.Connection) -> int:
    """The process id of the first service connection that waits for a lock of this connection."""
    while True:
        pid = await conn.fetchval(
            "SELECT pid FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid)) LIMIT 1"
        )
        if pid is not None:
            return pid
        await asyncio.sleep(0.005)


def uuid() -> str:
    return str(uuid4())


async def refused_unchanged(suite: Suite, world: World, request: Message, key: str | None = None) -> Refusal:
    """The refusal, of a call that changed nothing."""
    async with unchanged(suite, world):
        return await refused(suite, request, key or world.test_key)
