"""CustomerService: protobuf to model and back, nothing else."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import MessageToDict
from lictor.license.v1 import customer_service_pb2 as pb

from services.license import customer_access, customer_store, fields, render
from services.license.commands.change_customer_ban import change_customer_ban
from services.license.commands.create_customer_session import create_customer_session
from services.license.commands.revoke_customer_sessions import revoke_customer_sessions
from services.license.commands.update_customer import update_customer
from services.license.customer_model import CustomerAction
from services.license.customer_session_model import DEFAULT_TTL
from services.license.resources import Resources
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.rpc.context import CallContext
from shared.rpc.fields import masked, to_timedelta
from shared.rpc.pages import page_of


class CustomerServicer:
    """Customers, their bans and their sessions."""

    def __init__(self, resources: Resources) -> None:
        self._r = resources

    async def GetCustomer(self, request: pb.GetCustomerRequest, context: CallContext) -> pb.GetCustomerResponse:
        fields.check(request)
        statement, name = _named(request)
        async with self._r.db.transaction(context.principal.tenant, read_only=True) as tx:
            found = await customer_store.find(tx, statement, name)
        principal = context.principal
        if found is None or (customer_access.is_customer(principal) and found.customer_id != principal.customer_id):
            raise not_found(Reason.CUSTOMER_NOT_FOUND, name)
        return pb.GetCustomerResponse(customer=customer_access.shown(principal, render.customer(found)))

    async def ListCustomers(self, request: pb.ListCustomersRequest, context: CallContext) -> pb.ListCustomersResponse:
        fields.check(request)
        banned = request.banned if request.HasField("banned") else None
        narrowed = customer_store.CustomerFilter(request.email, request.subject_ref, banned)
        page = await page_of(
            self._r.db,
            self._r.pages,
            context,
            request,
            f"customers|{narrowed}",
            read=lambda tx, after, limit: customer_store.page(tx, after, limit, narrowed),
            id_of=lambda found: found.customer_id,
            rendered=lambda found, _: render.customer(found),
        )
        return pb.ListCustomersResponse(customers=page.items, next_page_token=page.next_token)

    async def UpdateCustomer(
        self, request: pb.UpdateCustomerRequest, context: CallContext
    ) -> pb.UpdateCustomerResponse:
        fields.check(request)
        changes = {field: _value(request, field) for field in masked(request, fields.CUSTOMER_FIELDS)}

        async def work(tx: Transaction) -> pb.UpdateCustomerResponse:
            changed = await update_customer(
                tx, actor=context.principal.key_id, customer_id=request.customer_id, etag=request.etag, changes=changes
            )
            return pb.UpdateCustomerResponse(customer=render.customer(changed))

        return await self._r.writer.run(context, request, pb.UpdateCustomerResponse, work)

    async def BanCustomer(self, request: pb.BanCustomerRequest, context: CallContext) -> pb.BanCustomerResponse:
        fields.check(request)

        async def work(tx: Transaction) -> pb.BanCustomerResponse:
            changed = await change_customer_ban(
                tx,
                CustomerAction.BAN,
                actor=context.principal.key_id,
                customer_id=request.customer_id,
                etag=request.etag,
                reason=request.reason,
            )
            return pb.BanCustomerResponse(customer=render.customer(changed))

        return await self._r.writer.run(context, request, pb.BanCustomerResponse, work)

    async def UnbanCustomer(self, request: pb.UnbanCustomerRequest, context: CallContext) -> pb.UnbanCustomerResponse:
        fields.check(request)

        async def work(tx: Transaction) -> pb.UnbanCustomerResponse:
            changed = await change_customer_ban(
                tx,
                CustomerAction.UNBAN,
                actor=context.principal.key_id,
                customer_id=request.customer_id,
                etag=request.etag,
                reason=request.reason,
            )
            return pb.UnbanCustomerResponse(customer=render.customer(changed))

        return await self._r.writer.run(context, request, pb.UnbanCustomerResponse, work)

    async def CreateCustomerSession(
        self, request: pb.CreateCustomerSessionRequest, context: CallContext
    ) -> pb.CreateCustomerSessionResponse:
        fields.check(request)

        async def work(tx: Transaction) -> pb.CreateCustomerSessionResponse:
            made = await create_customer_session(
                tx,
                self._r.hasher,
                actor=context.principal.key_id,
                customer_id=request.customer_id,
                ttl=to_timedelta(request, "ttl") or DEFAULT_TTL,
                reason=request.reason,
            )
            return pb.CreateCustomerSessionResponse(
                customer_session=render.customer_session(made.session), token=made.token
            )

        return await self._r.writer.run(context, request, pb.CreateCustomerSessionResponse, work)

    async def RevokeCustomerSessions(
        self, request: pb.RevokeCustomerSessionsRequest, context: CallContext
    ) -> pb.RevokeCustomerSessionsResponse:
        fields.check(request)

        async def work(tx: Transaction) -> pb.RevokeCustomerSessionsResponse:
            ended = await revoke_customer_sessions(
                tx, actor=context.principal.key_id, customer_id=request.customer_id, reason=request.reason
            )
            return pb.RevokeCustomerSessionsResponse(ended_count=ended)

        return await self._r.writer.run(context, request, pb.RevokeCustomerSessionsResponse, work)


def _named(request: pb.GetCustomerRequest) -> tuple[str, str]:
    """The statement that finds the customer, and the name that it is found by."""
    if request.customer_id:
        return customer_store.GET, request.customer_id
    if request.email:
        return customer_store.GET_BY_EMAIL, request.email.lower()
    return customer_store.GET_BY_SUBJECT, request.subject_ref


def _value(request: pb.UpdateCustomerRequest, field: str) -> Any:
    match field:
        case "email":
            return request.email.lower() or None
        case "subject_ref":
            return request.subject_ref or None
        case "labels":
            return dict(request.labels)
        case "metadata":
            return MessageToDict(request.metadata)
        case _:
            return getattr(request, field)
