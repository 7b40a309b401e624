"""AccountService: protobuf to model and back, nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from lictor.account.v1 import account_service_pb2 as pb
from lictor.common.v1.common_pb2 import Mode as ModePb

from services.license import account_store, fields, render, workload_store
from services.license.account_model import AccountAction, KeyKind
from services.license.commands.change_account_status import change_account_status
from services.license.commands.create_account import create_account
from services.license.commands.create_api_key import NewKey, create_api_key, refuse_wider
from services.license.commands.create_workload_binding import NewWorkloadBinding, create_workload_binding
from services.license.commands.delete_workload_binding import delete_workload_binding
from services.license.commands.revoke_api_key import revoke_api_key
from services.license.commands.rotate_api_key import rotate_api_key
from services.license.commands.update_account import update_account
from services.license.commands.update_workload_binding import update_workload_binding
from services.license.resources import Resources
from shared.db.pool import Transaction
from shared.errors import FieldViolation, Reason, fields_invalid, not_found
from shared.rpc.context import CallContext
from shared.rpc.fields import masked, to_datetime, to_timedelta
from shared.rpc.pages import page_of
from shared.rules import spiffe
from shared.tenancy import Mode, PrincipalKind, Tenant

DEFAULT_OVERLAP = timedelta(hours=24)


class AccountServicer:
    """Accounts and workload bindings for operators, API keys for the accounts themselves."""

    def __init__(self, resources: Resources) -> None:
        self._r = resources

    async def CreateAccount(self, request: pb.CreateAccountRequest, context: CallContext) -> pb.CreateAccountResponse:
        fields.check(request)

        async def work(tx: Transaction) -> pb.CreateAccountResponse:
            made = await create_account(
                tx,
                self._r.hasher,
                actor=context.principal.key_id,
                display_name=request.display_name,
                external_id=request.external_id or None,
            )
            return pb.CreateAccountResponse(
                account=render.account(made.account), test_api_key=made.test_api_key, live_api_key=made.live_api_key
            )

        return await self._r.writer.run(context, request, pb.CreateAccountResponse, work)

    async def GetAccount(self, request: pb.GetAccountRequest, context: CallContext) -> pb.GetAccountResponse:
        fields.check(request)
        async with self._r.db.transaction(context.principal.tenant, read_only=True) as tx:
            if request.account_id:
                found = await account_store.get_account(tx, request.account_id)
            else:
                found = await account_store.get_account_by_external_id(tx, request.external_id)
        if found is None:
            raise not_found(Reason.ACCOUNT_NOT_FOUND, request.account_id or request.external_id)
        return pb.GetAccountResponse(account=render.account(found))

    async def ListAccounts(self, request: pb.ListAccountsRequest, context: CallContext) -> pb.ListAccountsResponse:
        fields.check(request)
        page = await page_of(
            self._r.db,
            self._r.pages,
            context,
            request,
            "accounts",
            read=account_store.page_of_accounts,
            id_of=lambda found: found.account_id,
            rendered=lambda found, _: render.account(found),
        )
        return pb.ListAccountsResponse(accounts=page.items, next_page_token=page.next_token)

    async def UpdateAccount(self, request: pb.UpdateAccountRequest, context: CallContext) -> pb.UpdateAccountResponse:
        fields.check(request)
        given = {
            "external_id": request.external_id or None,
            "display_name": request.display_name,
            "limits": {field.name: value for field, value in request.limits.ListFields()},
        }
        changes: dict[str, Any] = {name: given[name] for name in masked(request, fields.ACCOUNT_FIELDS)}

        async def work(tx: Transaction) -> pb.UpdateAccountResponse:
            changed = await update_account(
                tx, actor=context.principal.key_id, account_id=request.account_id, etag=request.etag, changes=changes
            )
            return pb.UpdateAccountResponse(account=render.account(changed))

        return await self._r.writer.run(context, request, pb.UpdateAccountResponse, work)

    async def SuspendAccount(
        self, request: pb.SuspendAccountRequest, context: CallContext
    ) -> pb.SuspendAccountResponse:
        fields.check(request)

        async def work(tx: Transaction) -> pb.SuspendAccountResponse:
            changed = await change_account_status(
                tx,
                AccountAction.SUSPEND,
                actor=context.principal.key_id,
                account_id=request.account_id,
                reason=request.reason,
            )
            return pb.SuspendAccountResponse(account=render.account(changed))

        return await self._r.writer.run(context, request, pb.SuspendAccountResponse, work)

    async def ReinstateAccount(
        self, request: pb.ReinstateAccountRequest, context: CallContext
    ) -> pb.ReinstateAccountResponse:
        fields.check(request)

        async def work(tx: Transaction) -> pb.ReinstateAccountResponse:
            changed = await change_account_status(
                tx,
                AccountAction.REINSTATE,
                actor=context.principal.key_id,
                account_id=request.account_id,
                reason=request.reason,
            )
            return pb.ReinstateAccountResponse(account=render.account(changed))

        return await self._r.writer.run(context, request, pb.ReinstateAccountResponse, work)

    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, context: CallContext) -> pb.CreateApiKeyResponse:
        fields.check(request)
        scopes = _scopes(request.scopes)
        refuse_wider(context.principal, scopes)

        async def work(tx: Transaction) -> pb.CreateApiKeyResponse:
            expires_at = to_datetime(request, "expire_time")
            if expires_at is not None and expires_at <= tx.now:
                raise fields_invalid((FieldViolation("expire_time", "MUST_BE_FUTURE", "must be in the future"),))
            wanted = NewKey(request.display_name, request.external_id or None, scopes, expires_at, _kind(request))
            made = await create_api_key(tx, self._r.hasher, actor=context.principal.key_id, wanted=wanted)
            key = render.api_key(made.api_key, tx.tenant.mode, tx.now)
            return pb.CreateApiKeyResponse(api_key=key, secret=made.secret)

        return await self._r.writer.run(context, request, pb.CreateApiKeyResponse, work)

    async def GetApiKey(self, request: pb.GetApiKeyRequest, context: CallContext) -> pb.GetApiKeyResponse:
        fields.check(request)
        async with self._r.db.transaction(context.principal.tenant, read_only=True) as tx:
            if request.api_key_id:
                found = await account_store.get_key(tx, request.api_key_id)
            else:
                found = await account_store.get_key_by_external_id(tx, request.external_id)
        if found is None:
            raise not_found(Reason.API_KEY_NOT_FOUND, request.api_key_id or request.external_id)
        return pb.GetApiKeyResponse(api_key=render.api_key(found, tx.tenant.mode, tx.now))

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, context: CallContext) -> pb.ListApiKeysResponse:
        fields.check(request)
        page = await page_of(
            self._r.db,
            self._r.pages,
            context,
            request,
            "api_keys",
            read=account_store.page_of_keys,
            id_of=lambda found: found.api_key_id,
            rendered=lambda found, now: render.api_key(found, context.principal.tenant.mode, now),
        )
        return pb.ListApiKeysResponse(api_keys=page.items, next_page_token=page.next_token)

    async def RotateApiKey(self, request: pb.RotateApiKeyRequest, context: CallContext) -> pb.RotateApiKeyResponse:
        fields.check(request)
        overlap = to_timedelta(request, "overlap")

        async def work(tx: Transaction) -> pb.RotateApiKeyResponse:
            made, old = await rotate_api_key(
                tx,
                self._r.hasher,
                principal=context.principal,
                api_key_id=request.api_key_id,
                overlap=DEFAULT_OVERLAP if overlap is None else overlap,
            )
            return pb.RotateApiKeyResponse(
                api_key=render.api_key(made.api_key, tx.tenant.mode, tx.now),
                secret=made.secret,
                replaced=render.api_key(old, tx.tenant.mode, tx.now),
            )

        return await self._r.writer.run(context, request, pb.RotateApiKeyResponse, work)

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, context: CallContext) -> pb.RevokeApiKeyResponse:
        fields.check(request)

        async def work(tx: Transaction) -> pb.RevokeApiKeyResponse:
            revoked = await revoke_api_key(
                tx, actor=context.principal.key_id, api_key_id=request.api_key_id, reason=request.reason
            )
            return pb.RevokeApiKeyResponse(api_key=render.api_key(revoked, tx.tenant.mode, tx.now))

        return await self._r.writer.run(context, request, pb.RevokeApiKeyResponse, work)

    async def CreateWorkloadBinding(
        self, request: pb.CreateWorkloadBindingRequest, context: CallContext
    ) -> pb.CreateWorkloadBindingResponse:
        fields.check(request)
        pattern = spiffe.parse_pattern(request.spiffe_id_pattern)
        assert pattern is not None, "the fields are checked"
        wanted = NewWorkloadBinding(
            request.display_name,
            request.external_id or None,
            pattern,
            Tenant(request.account_id, Mode(ModePb.Kind.Name(request.mode))),
            _scopes(request.scopes),
        )

        async def work(tx: Transaction) -> pb.CreateWorkloadBindingResponse:
            made = await create_workload_binding(tx, actor=context.principal.key_id, wanted=wanted)
            return pb.CreateWorkloadBindingResponse(workload_binding=render.workload_binding(made))

        return await self._r.writer.run(context, request, pb.CreateWorkloadBindingResponse, work)

    async def GetWorkloadBinding(
        self, request: pb.GetWorkloadBindingRequest, context: CallContext
    ) -> pb.GetWorkloadBindingResponse:
        fields.check(request)
        async with self._r.db.transaction(context.principal.tenant, read_only=True) as tx:
            if request.workload_binding_id:
                found = await workload_store.get(tx, request.workload_binding_id)
            else:
                found = await workload_store.get_by_external_id(tx, request.external_id)
        if found is None:
            raise not_found(Reason.WORKLOAD_BINDING_NOT_FOUND, request.workload_binding_id or request.external_id)
        return pb.GetWorkloadBindingResponse(workload_binding=render.workload_binding(found))

    async def ListWorkloadBindings(
        self, request: pb.ListWorkloadBindingsRequest, context: CallContext
    ) -> pb.ListWorkloadBindingsResponse:
        fields.check(request)
        page = await page_of(
            self._r.db,
            self._r.pages,
            context,
            request,
            f"workload_bindings|{request.account_id}",
            read=lambda tx, after, limit: workload_store.page(tx, after, limit, request.account_id),
            id_of=lambda found: found.workload_binding_id,
            rendered=lambda found, _: render.workload_binding(found),
        )
        return pb.ListWorkloadBindingsResponse(workload_bindings=page.items, next_page_token=page.next_token)

    async def UpdateWorkloadBinding(
        self, request: pb.UpdateWorkloadBindingRequest, context: CallContext
    ) -> pb.UpdateWorkloadBindingResponse:
        fields.check(request)
        given = {"display_name": request.display_name, "scopes": _scopes(request.scopes)}
        changes: dict[str, Any] = {name: given[name] for name in masked(request, fields.WORKLOAD_BINDING_FIELDS)}

        async def work(tx: Transaction) -> pb.UpdateWorkloadBindingResponse:
            changed = await update_workload_binding(
                tx,
                actor=context.principal.key_id,
                workload_binding_id=request.workload_binding_id,
                etag=request.etag,
                changes=changes,
            )
            return pb.UpdateWorkloadBindingResponse(workload_binding=render.workload_binding(changed))

        return await self._r.writer.run(context, request, pb.UpdateWorkloadBindingResponse, work)

    async def DeleteWorkloadBinding(
        self, request: pb.DeleteWorkloadBindingRequest, context: CallContext
    ) -> pb.DeleteWorkloadBindingResponse:
        fields.check(request)

        async def work(tx: Transaction) -> pb.DeleteWorkloadBindingResponse:
            await delete_workload_binding(
                tx,
                actor=context.principal.key_id,
                workload_binding_id=request.workload_binding_id,
                etag=request.etag,
                reason=request.reason,
            )
            return pb.DeleteWorkloadBindingResponse()

        return await self._r.writer.run(context, request, pb.DeleteWorkloadBindingResponse, work)

    async def WhoAmI(self, request: pb.WhoAmIRequest, context: CallContext) -> pb.WhoAmIResponse:
        fields.check(request)
        principal = context.principal
        return pb.WhoAmIResponse(
            kind=pb.PrincipalKind.Kind.Value(principal.kind.value),
            account_id=principal.account_id,
            mode=render.mode(principal.mode),
            key_id=principal.key_id,
            scopes=sorted(principal.scopes),
            expire_time=render.timestamp(principal.expires_at),
            spiffe_id=context.peer_identity() if principal.kind is PrincipalKind.WORKLOAD else "",
            license_id=principal.license_id,
            customer_id=principal.customer_id,
        )


def _kind(request: pb.CreateApiKeyRequest) -> KeyKind:
    return KeyKind(pb.ApiKeyKind.Kind.Name(request.kind)) if request.kind else KeyKind.SECRET


def _scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(scopes)))
