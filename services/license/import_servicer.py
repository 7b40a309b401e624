"""ImportLicenses: protobuf to model and back. The work on a large batch is done beside the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from lictor.license.v1 import license_service_pb2 as pb

from services.license import fields
from services.license.commands.import_licenses import Outcome, import_licenses, plan_import
from services.license.import_model import AlreadyThere, ImportItem, Plan, at
from services.license.model import Status
from services.license.resources import Resources
from services.license.wanted import new_license
from shared.db.pool import Transaction
from shared.errors import FieldViolation
from shared.rpc.context import CallContext
from shared.rpc.fields import to_datetime

MAX_VIOLATIONS = 1000


async def serve_import(
    resources: Resources, request: pb.ImportLicensesRequest, context: CallContext
) -> pb.ImportLicensesResponse:
    """Answers the call."""
    fields.check(request)
    items, bad = await asyncio.to_thread(_read, request)
    if request.validate_only:
        async with resources.db.transaction(context.principal.tenant) as tx:
            return _foreseen(await plan_import(tx, resources.keeper, items), bad)

    async def work(tx: Transaction) -> pb.ImportLicensesResponse:
        actor = context.principal.key_id
        done = await import_licenses(tx, resources.keeper, actor=actor, items=items, bad=bad)
        return pb.ImportLicensesResponse(licenses=[_imported(outcome) for outcome in done])

    return await resources.writer.run(context, request, pb.ImportLicensesResponse, work)


def _read(request: pb.ImportLicensesRequest) -> tuple[list[ImportItem | None], list[FieldViolation]]:
    """The items, None for those whose fields are bad, and what is bad of them."""
    items: list[ImportItem | None] = []
    bad: list[FieldViolation] = []
    for index, item in enumerate(request.items):
        found = [violation for check in fields.IMPORT_ITEM for violation in check(item)]
        bad += [FieldViolation(at(index, v.field), v.reason, v.description) for v in found]
        items.append(None if found else _item(item))
    return items, bad


def _item(item: pb.LicenseImport) -> ImportItem:
    status = Status(pb.LicenseStatus.Status.Name(item.status)) if item.status else Status.ACTIVE
    return ImportItem(
        wanted=new_license(item),
        policy_external_id=item.policy_external_id,
        tier=item.tier,
        perpetual=item.perpetual,
        status=status,
        status_reason=item.status_reason,
        created_at=to_datetime(item, "create_time"),
        uses=item.uses,
    )


def _imported(outcome: Outcome) -> pb.ImportedLicense:
    return pb.ImportedLicense(license_id=outcome.license_id, key=outcome.key, already_there=outcome.already_there)


def _foreseen(plan: Plan, bad: Sequence[FieldViolation]) -> pb.ImportLicensesResponse:
    violations = (*bad, *plan.violations)
    if violations:
        shown = [
            pb.ImportViolation(field=v.field, reason=v.reason, description=v.description)
            for v in violations[:MAX_VIOLATIONS]
        ]
        return pb.ImportLicensesResponse(violations=shown, violation_count=len(violations))
    return pb.ImportLicensesResponse(
        licenses=[
            pb.ImportedLicense(license_id=outcome.license_id, already_there=True)
            if isinstance(outcome, AlreadyThere)
            else pb.ImportedLicense()
            for outcome in plan.outcomes
        ]
    )
