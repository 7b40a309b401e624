"""What tests of credentials need: each kind of caller, and calls with any `authorization`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import grpc.aio
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from lictor import AsyncLictor
from lictor.account.v1.account_service_pb2 import CreateApiKeyResponse, WhoAmIRequest
from lictor.license.v1.license_service_pb2 import CreateLicenseResponse

from shared.tenancy import PUBLISHABLE_SCOPES
from tests.helpers.builders import METHODS, Shop, open_shop, path_of, refused_by
from tests.helpers.echo import Refusal, as_is, refusal
from tests.helpers.suite import Suite, World


def bearer_of(key: str) -> str:
    return f"Bearer {key}"


def license_of(publishable_key: str, license_key: str) -> str:
    return f"License {publishable_key}:{license_key}"


async def send_as(suite: Suite, request: Message, authorization: str) -> Any:
    """Calls the method that takes this request, with this `authorization`."""
    method = METHODS[cast("Descriptor", request.DESCRIPTOR).full_name]
    answer = message_factory.GetMessageClass(method.output_type)
    call = suite.channel.unary_unary(path_of(method), as_is, answer.FromString)
    metadata = grpc.aio.Metadata(("authorization", authorization))
    return await call(request.SerializeToString(), timeout=10, metadata=metadata)


async def refused_as(suite: Suite, request: Message, authorization: str) -> Refusal:
    return await refused_by(send_as(suite, request, authorization))


async def outcome_as(suite: Suite, request: Message, authorization: str) -> str:
    """OK, or the reason of the refusal."""
    try:
        await send_as(suite, request, authorization)
    except grpc.aio.AioRpcError as error:
        return refusal(error).reason
    return "OK"


async def let_in(suite: Suite, authorization: str) -> bool:
    """Whether the credential is good; a bad one is told nothing but that."""
    found = await outcome_as(suite, WhoAmIRequest(), authorization)
    assert found in {"OK", "CREDENTIALS_INVALID"}
    return found == "OK"


async def publishable(client: AsyncLictor, **more: Any) -> CreateApiKeyResponse:
    """A new publishable key, with all the scopes that it can hold unless `scopes` are given."""
    more.setdefault("scopes", sorted(PUBLISHABLE_SCOPES))
    return await client.api_keys.create(kind="PUBLISHABLE", **more)


@dataclass(frozen=True)
class Portal:
    """A shop whose customer has a license and a session; `client` calls with that session."""

    shop: Shop
    issued: CreateLicenseResponse
    token: str
    session_id: str
    client: AsyncLictor

    @property
    def customer_id(self) -> str:
        return self.issued.license.customer_id

    @property
    def license_id(self) -> str:
        return self.issued.license.license_id


async def open_portal(suite: Suite, world: World, *, code: str = "SHOP", email: str = "ada@example.com") -> Portal:
    shop = await open_shop(world.test, code=code)
    issued = await shop.issue(customer_email=email)
    made = await world.test.customers.create_session(issued.license.customer_id)
    client = suite.client(made.token)
    return Portal(shop, issued, made.token, made.customer_session.customer_session_id, client)
