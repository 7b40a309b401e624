"""From the model to protobuf."""

from __future__ import annotations

from datetime import datetime

from lictor.account.v1 import account_service_pb2 as account_pb
from lictor.common.v1.common_pb2 import Mode as ModePb
from lictor.common.v1.event_pb2 import Event as EventPb
from lictor.license.v1 import catalog_service_pb2 as catalog_pb
from lictor.license.v1 import customer_service_pb2 as customer_pb
from lictor.license.v1 import license_service_pb2 as license_pb

from services.license import policy_terms
from services.license.account_model import Account, ApiKey
from services.license.catalog_model import Policy, Product, Tier
from services.license.customer_model import Customer
from services.license.customer_session_model import CustomerSession
from services.license.event_store import StoredEvent
from services.license.model import License, marks
from services.license.terms import Overrides
from services.license.workload_model import WorkloadBinding
from shared.etags import etag_of
from shared.rpc.render import duration, struct, timestamp
from shared.rules.expiry import grace_end
from shared.rules.limits import LimitKind
from shared.tenancy import Mode, Tenant


def mode(value: Mode | None) -> ModePb.Kind.ValueType:
    return ModePb.KIND_UNSPECIFIED if value is None else ModePb.Kind.Value(value.value)


def account(value: Account) -> account_pb.Account:
    return account_pb.Account(
        account_id=value.account_id,
        external_id=value.external_id or "",
        display_name=value.display_name,
        status=account_pb.AccountStatus.Status.Value(value.status.value),
        create_time=timestamp(value.created_at),
        update_time=timestamp(value.updated_at),
        etag=etag_of(value.revision),
        revision=value.revision,
        limits=account_pb.AccountLimits(
            **{kind.value: value.limits[kind.value] for kind in LimitKind if kind.value in value.limits}
        ),
    )


def api_key(value: ApiKey, key_mode: Mode, now: datetime) -> account_pb.ApiKey:
    return account_pb.ApiKey(
        api_key_id=value.api_key_id,
        external_id=value.external_id or "",
        display_name=value.display_name,
        mode=mode(key_mode),
        scopes=value.scopes,
        status=account_pb.ApiKeyStatus.Status.Value(value.status(now).value),
        hint=value.hint,
        kind=account_pb.ApiKeyKind.Kind.Value(value.kind.value),
        expire_time=timestamp(value.expires_at),
        replaced_by_id=value.replaced_by_id or "",
        create_time=timestamp(value.created_at),
        update_time=timestamp(value.updated_at),
        etag=etag_of(value.revision),
        revision=value.revision,
    )


def workload_binding(value: WorkloadBinding) -> account_pb.WorkloadBinding:
    return account_pb.WorkloadBinding(
        workload_binding_id=value.workload_binding_id,
        external_id=value.external_id or "",
        display_name=value.display_name,
        spiffe_id_pattern=str(value.spiffe_id_pattern),
        account_id=value.account_id,
        mode=mode(value.mode),
        scopes=value.scopes,
        create_time=timestamp(value.created_at),
        update_time=timestamp(value.updated_at),
        etag=etag_of(value.revision),
        revision=value.revision,
    )


def product(value: Product) -> catalog_pb.Product:
    return catalog_pb.Product(
        product_id=value.product_id,
        external_id=value.external_id or "",
        code=value.code,
        slug=value.slug,
        display_name=value.display_name,
        url=value.url,
        key_storage=catalog_pb.KeyStorage.Kind.Value(value.key_storage.value),
        labels=value.labels,
        metadata=struct(value.metadata),
        create_time=timestamp(value.created_at),
        update_time=timestamp(value.updated_at),
        etag=etag_of(value.revision),
        revision=value.revision,
    )


def tier(value: Tier) -> catalog_pb.Tier:
    return catalog_pb.Tier(
        tier_id=value.tier_id,
        external_id=value.external_id or "",
        product_id=value.product_id,
        slug=value.slug,
        display_name=value.display_name,
        position=value.position,
        labels=value.labels,
        metadata=struct(value.metadata),
        create_time=timestamp(value.created_at),
        update_time=timestamp(value.updated_at),
        etag=etag_of(value.revision),
        revision=value.revision,
    )


def policy(value: Policy) -> catalog_pb.Policy:
    made = catalog_pb.Policy(
        policy_id=value.policy_id,
        external_id=value.external_id or "",
        product_id=value.product_id,
        display_name=value.display_name,
        template=catalog_pb.PolicyTemplate.Kind.Value(value.template.value),
        labels=value.labels,
        metadata=struct(value.metadata),
        create_time=timestamp(value.created_at),
        update_time=timestamp(value.updated_at),
        etag=etag_of(value.revision),
        revision=value.revision,
    )
    policy_terms.write(value.terms, made)
    return made


def customer(value: Customer) -> customer_pb.Customer:
    return customer_pb.Customer(
        customer_id=value.customer_id,
        email=value.email or "",
        subject_ref=value.subject_ref or "",
        display_name=value.display_name,
        banned=value.banned_at is not None,
        ban_time=timestamp(value.banned_at),
        ban_reason=value.ban_reason,
        labels=value.labels,
        metadata=struct(value.metadata),
        create_time=timestamp(value.created_at),
        update_time=timestamp(value.updated_at),
        etag=etag_of(value.revision),
        revision=value.revision,
    )


def customer_session(value: CustomerSession) -> customer_pb.CustomerSession:
    return customer_pb.CustomerSession(
        customer_session_id=value.customer_session_id,
        customer_id=value.customer_id,
        create_time=timestamp(value.created_at),
        expire_time=timestamp(value.expires_at),
    )


def license_(value: License, now: datetime, *, metadata: bool = True) -> license_pb.License:
    """With the state, the marks and the uses as they are at `now`."""
    return license_pb.License(
        license_id=value.license_id,
        external_id=value.external_id or "",
        product_id=value.product_id,
        policy_id=value.policy_id,
        tier_id=value.tier_id or "",
        customer_id=value.customer_id or "",
        display_name=value.display_name,
        status=license_pb.LicenseStatus.Status.Value(value.status_at(now).value),
        key_hint=value.key_hint,
        start_time=timestamp(value.starts_at),
        expire_time=timestamp(value.expires_at),
        status_reason=value.status_reason,
        labels=value.labels,
        metadata=struct(value.metadata) if metadata else None,
        create_time=timestamp(value.created_at),
        update_time=timestamp(value.updated_at),
        etag=etag_of(value.revision),
        revision=value.revision,
        overrides=_overrides(value.overrides),
        uses=value.uses,
        last_validate_time=timestamp(value.last_validated_at),
        last_check_in_time=timestamp(value.last_check_in_at),
        check_in_due_time=timestamp(value.check_in_due),
        grace_end_time=timestamp(grace_end(value.expires_at, value.terms.grace_period)),
        expiry_anchored=value.expiry_anchored_at is not None or value.expires_at is not None,
        marks=[license_pb.LicenseMark.Kind.Value(mark.value) for mark in marks(value, now)],
    )


def _overrides(value: Overrides) -> license_pb.LicenseOverrides | None:
    if value == Overrides():
        return None
    return license_pb.LicenseOverrides(
        max_machines=value.max_machines,
        max_uses=value.max_uses,
        offline_max_ttl=duration(value.offline_max_ttl),
        max_users=value.max_users,
        max_cores=value.max_cores,
        max_memory_bytes=value.max_memory_bytes,
        max_disk_bytes=value.max_disk_bytes,
        max_processes=value.max_processes,
    )


def event(value: StoredEvent, tenant: Tenant) -> EventPb:
    return EventPb(
        id=value.event_id,
        type=value.type,
        schema_version=value.schema_version,
        account_id=tenant.account_id,
        mode=mode(tenant.mode),
        subject=value.subject,
        subject_seq=value.subject_seq,
        occurred_at=timestamp(value.occurred_at),
        actor=value.actor,
        source=value.source,
        reason=value.reason,
        data=struct(value.data),
    )
