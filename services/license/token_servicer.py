"""TokenService: protobuf to model and back, nothing else."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from lictor.license.v1 import token_service_pb2 as pb

from services.license import (
    callers,
    catalog_store,
    customer_access,
    fields,
    queries,
    render_keys,
    signing_key_store,
)
from services.license.commands.issue_license_file import issue_license_file
from services.license.commands.revoke_signing_key import revoke_signing_key
from services.license.commands.rotate_signing_key import rotate_signing_key
from services.license.file_model import FileStatus
from services.license.resources import Resources
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.rpc.context import CallContext
from shared.rpc.fields import to_timedelta
from shared.rpc.pages import page_of

KEY_SET_MAX_AGE_S: Final = 300
"""For how long a key set may be kept by whoever has read it. So long a revoked key may be believed there."""


class TokenServicer:
    """License files, the keys that sign them, and the sets that those are published in."""

    def __init__(self, resources: Resources) -> None:
        self._r = resources

    async def IssueLicenseFile(
        self, request: pb.IssueLicenseFileRequest, context: CallContext
    ) -> pb.IssueLicenseFileResponse:
        fields.check(request)
        callers.refuse_other_license(context.principal, request.license_id)

        async def work(tx: Transaction) -> pb.IssueLicenseFileResponse:
            await customer_access.refuse_others_license(tx, context.principal, request.license_id)
            done = await issue_license_file(
                tx,
                self._r.signers,
                self._r.keeper,
                actor=context.principal.key_id,
                license_id=request.license_id,
                ttl=to_timedelta(request, "ttl"),
                license_key=request.license_key,
                fingerprint=request.fingerprint,
                reason=request.reason,
            )
            return pb.IssueLicenseFileResponse(
                license_file=render_keys.license_file(done.file, FileStatus.ISSUED),
                file=done.text,
                key_set_id=done.key_set_id,
            )

        return await self._r.writer.run(context, request, pb.IssueLicenseFileResponse, work)

    async def ListLicenseFiles(
        self, request: pb.ListLicenseFilesRequest, context: CallContext
    ) -> pb.ListLicenseFilesResponse:
        fields.check(request)
        page = await page_of(
            self._r.db,
            self._r.pages,
            context,
            request,
            f"license files|{request.license_id}",
            read=lambda tx, after, limit: queries.files_of_a_license(tx, request.license_id, after, limit),
            id_of=lambda found: str(found[0].seq),
            rendered=lambda found, _: render_keys.license_file(*found),
        )
        return pb.ListLicenseFilesResponse(license_files=page.items, next_page_token=page.next_token)

    async def RotateSigningKey(
        self, request: pb.RotateSigningKeyRequest, context: CallContext
    ) -> pb.RotateSigningKeyResponse:
        fields.check(request)

        async def work(tx: Transaction) -> pb.RotateSigningKeyResponse:
            done = await rotate_signing_key(
                tx,
                self._r.signers,
                actor=context.principal.key_id,
                product_id=request.product_id,
                lead=to_timedelta(request, "publication_lead") or timedelta(0),
                reason=request.reason,
            )
            return pb.RotateSigningKeyResponse(
                signing_key=render_keys.signing_key(done.key),
                previous_signing_key=None if done.before is None else render_keys.signing_key(done.before),
                key_set_id=done.key_set.key_set_id,
            )

        return await self._r.writer.run(context, request, pb.RotateSigningKeyResponse, work)

    async def RevokeSigningKey(
        self, request: pb.RevokeSigningKeyRequest, context: CallContext
    ) -> pb.RevokeSigningKeyResponse:
        fields.check(request)

        async def work(tx: Transaction) -> pb.RevokeSigningKeyResponse:
            changed = await revoke_signing_key(
                tx,
                self._r.signers,
                actor=context.principal.key_id,
                signing_key_id=request.signing_key_id,
                reason=request.reason,
            )
            return pb.RevokeSigningKeyResponse(signing_key=render_keys.signing_key(changed))

        return await self._r.writer.run(context, request, pb.RevokeSigningKeyResponse, work)

    async def ListSigningKeys(
        self, request: pb.ListSigningKeysRequest, context: CallContext
    ) -> pb.ListSigningKeysResponse:
        fields.check(request)
        async with self._r.db.transaction(context.principal.tenant, read_only=True) as tx:
            if await catalog_store.get_product(tx, request.product_id) is None:
                raise not_found(Reason.PRODUCT_NOT_FOUND, request.product_id)
            key_set = await signing_key_store.get_set(tx, request.product_id)
        page = await page_of(
            self._r.db,
            self._r.pages,
            context,
            request,
            f"signing keys|{request.product_id}",
            read=lambda tx, after, limit: signing_key_store.page(tx, after, limit, request.product_id),
            id_of=lambda found: found.signing_key_id,
            rendered=lambda found, _: render_keys.signing_key(found),
        )
        return pb.ListSigningKeysResponse(
            signing_keys=page.items,
            next_page_token=page.next_token,
            key_set_id="" if key_set is None else key_set.key_set_id,
        )

    async def GetJsonWebKeySet(
        self, request: pb.GetJsonWebKeySetRequest, context: CallContext
    ) -> pb.GetJsonWebKeySetResponse:
        fields.check(request)
        found = await self._r.key_sets.published(request.key_set_id)
        if found is None:
            raise not_found(Reason.KEY_SET_NOT_FOUND, request.key_set_id)
        await context.send_initial_metadata((("cache-control", f"public, max-age={KEY_SET_MAX_AGE_S}"),))
        return pb.GetJsonWebKeySetResponse(
            keys=[render_keys.json_web_key(key.signing_key_id, key.alg, key.jwk) for key in found]
        )
