"""The constraints of this service's requests, one table per message; the protos' comments say the same in words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from google.protobuf.message import Message
from lictor.account.v1 import account_service_pb2 as account
from lictor.license.v1 import catalog_service_pb2 as catalog
from lictor.license.v1 import customer_service_pb2 as customers
from lictor.license.v1 import license_service_pb2 as licenses
from lictor.license.v1 import signing_service_pb2 as signing
from lictor.license.v1 import token_service_pb2 as tokens
from lictor.license.v1 import validation_service_pb2 as validation

from services.license import checks
from services.license.customer_session_model import MAX_TTL, MIN_TTL
from services.license.file_model import MAX_TTL as MAX_FILE_TTL
from services.license.file_model import MIN_TTL as MIN_FILE_TTL
from services.license.policy_terms import TERM_NAMES
from services.license.signing_key_model import MAX_PUBLICATION_LEAD
from shared.freshness.resume import MAX_CHARS as MAX_TOKEN_CHARS
from shared.rpc import fields as f
from shared.rpc.selectors import one_selector
from shared.rules.limits import LimitKind
from shared.rules.stale import MAX_STALE

PRODUCT_FIELDS: Final = ("external_id", "slug", "display_name", "url", "labels", "metadata")
TIER_FIELDS: Final = ("external_id", "slug", "display_name", "position", "labels", "metadata")
POLICY_FIELDS: Final = (
    "external_id", "display_name", *sorted(TERM_NAMES - {"expiration_basis"}), "labels", "metadata",
)  # fmt: skip
ACCOUNT_FIELDS: Final = ("external_id", "display_name", "limits")
WORKLOAD_BINDING_FIELDS: Final = ("display_name", "scopes")
CUSTOMER_FIELDS: Final = ("email", "subject_ref", "display_name", "labels", "metadata")
MAX_IMPORT_ITEMS: Final = 1000
LICENSE_FIELDS: Final = ("external_id", "display_name", "start_time", "expire_time", "overrides", "labels", "metadata")

_ID_CHARS: Final = 64
_Status: Final = licenses.LicenseStatus.Status
_HOUR: Final = timedelta(hours=1)
_CENTURY: Final = timedelta(days=36500)
_RID: Final = f.request_id()
_EXTERNAL_ID: Final = f.text("external_id")
_NAME: Final = f.text("display_name")
_REQUIRED_NAME: Final = f.text("display_name", required=True)
_REASON: Final = f.text("reason")
_ETAG: Final = f.text("etag", max_chars=_ID_CHARS)
_DATA: Final = (f.labels(), f.metadata())
_PAGE: Final = (f.page_size(), f.text("page_token", max_chars=512))
_URL: Final = f.text(
    "url", max_chars=2048, pattern=r"https?://[^\s]+", reason="URL_INVALID", words="must be an http or https URL"
)
_SLUG: Final = f.text(
    "slug",
    pattern=r"[a-z0-9-]{1,63}",
    reason="SLUG_INVALID",
    words="must match ^[a-z0-9-]{1,63}$: lower case, digits, hyphens",
)
_POSITION: Final = f.number("position", least=0)
_SEAT_LIMITS: Final = (
    f.number("max_machines", least=1),
    f.number("max_users", least=1),
    f.number("max_cores", least=1),
    f.number("max_memory_bytes", least=1),
    f.number("max_disk_bytes", least=1),
    f.number("max_processes", least=1),
)
_TERMS: Final = (
    f.duration("duration", least=_HOUR, most=_CENTURY),
    f.duration("trial_duration", least=_HOUR, most=_CENTURY),
    f.duration("grace_period", least=timedelta(0), most=timedelta(days=365)),
    f.known_enum("expiration_strategy"),
    f.known_enum("renewal_basis"),
    f.known_enum("transfer_strategy"),
    f.number("max_uses", least=1),
    f.known_enum("uses_counted_by"),
    f.known_enum("overage_strategy"),
    f.duration("heartbeat_interval", least=timedelta(seconds=60), most=timedelta(days=90)),
    f.duration("offline_max_ttl", least=_HOUR, most=timedelta(days=90)),
    f.known_enum("check_in_interval"),
    f.number("check_in_count", least=1, most=365),
    f.known_enum("authentication"),
    f.enum_set("overridable"),
    f.duration("stale_ok_for", least=timedelta(0), most=MAX_STALE),
    *_SEAT_LIMITS,
    f.known_enum("machine_uniqueness"),
    f.known_enum("machine_matching"),
    f.known_enum("component_uniqueness"),
    f.known_enum("component_matching"),
    f.known_enum("machine_leasing"),
    f.known_enum("process_leasing"),
    f.known_enum("seat_acquire"),
    f.known_enum("heartbeat_basis"),
    f.known_enum("heartbeat_cull"),
    f.known_enum("heartbeat_resurrection"),
    f.number("max_transfers", least=0),
    f.duration("transfer_period", least=_HOUR, most=timedelta(days=365)),
)
_OVERRIDES: Final = f.nested(
    "overrides",
    *_SEAT_LIMITS,
    f.number("max_uses", least=1),
    f.duration("offline_max_ttl", least=_HOUR, most=timedelta(days=90)),
)
_USES: Final = f.number("uses", least=1, most=1_000_000_000)


def _id(field: str) -> f.Check:
    return f.text(field, required=True, max_chars=_ID_CHARS)


def _optional_id(field: str) -> f.Check:
    return f.text(field, max_chars=_ID_CHARS)


def _tier_slug(field: str, *, required: bool = False) -> f.Check:
    return f.text(
        field,
        required=required,
        pattern=r"[a-z0-9_]{1,63}",
        reason="SLUG_INVALID",
        words="must match ^[a-z0-9_]{1,63}$: lower case, digits, underscores",
    )


def _get(field: str) -> tuple[f.Check, ...]:
    return (f.one_of_id(field), _optional_id(field), _EXTERNAL_ID)


_EMAIL: Final = f.text(
    "email", pattern=r"[^@\s]{1,64}@[^@\s]{1,190}", reason="EMAIL_INVALID", words="must be an email address"
)
_KEY: Final = f.text(
    "key",
    pattern=r"[!-~]{8,255}",
    reason="LICENSE_KEY_INVALID",
    words="must be 8 to 255 printable ASCII characters, no spaces",
)
_FINGERPRINT: Final = f.text("fingerprint", min_chars=8, max_chars=256)
_CUSTOMER_REF: Final = (checks.customer_ref, _optional_id("customer_id"), _EMAIL, f.text("subject_ref"), _NAME)
_STATUS_CHANGE: Final = (_RID, _id("license_id"), _ETAG, _REASON)

_VALIDATION: Final = (
    one_selector, _tier_slug("required_tier"), f.text("product", max_chars=_ID_CHARS), _optional_id("policy_id"),
    f.nested("required_entitlements", checks.feature_keys),
    f.nested("user", checks.user, _optional_id("customer_id"), f.text("email"), f.text("subject_ref")),
    f.nested("identity", checks.identity), _optional_id("machine_id"), f.nested("components", checks.named_components),
    checks.components_of_a_machine,
)  # fmt: skip

_CONSISTENCY: Final = f.nested("consistency", checks.consistency)
_NEW_LICENSE: Final = (
    _optional_id("tier_id"),
    f.nested("customer", *_CUSTOMER_REF),
    _KEY, _EXTERNAL_ID, _NAME, f.timestamp("start_time"), f.timestamp("expire_time"), _OVERRIDES, *_DATA,
)  # fmt: skip


IMPORT_ITEM: Final = (
    f.one_of_id("policy_id", "policy_external_id"), _optional_id("policy_id"), f.text("policy_external_id"),
    _tier_slug("tier"), f.known_enum("status"), f.text("status_reason"), f.timestamp("create_time"),
    checks.import_contradictions, *_NEW_LICENSE,
)  # fmt: skip
"""The constraints of one item of an import."""

TABLES: Final[Mapping[type[Message], tuple[f.Check, ...]]] = MappingProxyType(
    {
        account.CreateAccountRequest: (f.request_id(required=True), _REQUIRED_NAME, _EXTERNAL_ID),
        account.GetAccountRequest: _get("account_id"),
        account.ListAccountsRequest: _PAGE,
        account.UpdateAccountRequest: (
            _RID, _id("account_id"), _ETAG, f.mask(ACCOUNT_FIELDS, never_empty=("display_name",)), _EXTERNAL_ID, _NAME,
            f.nested("limits", *(f.number(kind.value, least=0) for kind in LimitKind)),
        ),
        account.SuspendAccountRequest: (_RID, _id("account_id"), _REASON),
        account.ReinstateAccountRequest: (_RID, _id("account_id"), _REASON),
        account.CreateApiKeyRequest: (
            _RID, _NAME, _EXTERNAL_ID, f.known_enum("kind"), checks.scopes, checks.publishable_scopes, f.timestamp("expire_time"),
        ),
        account.GetApiKeyRequest: _get("api_key_id"),
        account.ListApiKeysRequest: _PAGE,
        account.RotateApiKeyRequest: (
            _RID, _id("api_key_id"), f.duration("overlap", least=timedelta(0), most=timedelta(days=30)),
        ),
        account.RevokeApiKeyRequest: (_RID, _id("api_key_id"), _REASON),
        account.CreateWorkloadBindingRequest: (
            _RID, _NAME, _EXTERNAL_ID, checks.spiffe_id_pattern, _id("account_id"), checks.required_mode, f.known_enum("mode"),
            checks.scopes,
        ),
        account.GetWorkloadBindingRequest: _get("workload_binding_id"),
        account.ListWorkloadBindingsRequest: (*_PAGE, _optional_id("account_id")),
        account.UpdateWorkloadBindingRequest: (
            _RID, _id("workload_binding_id"), _ETAG, f.mask(WORKLOAD_BINDING_FIELDS, never_empty=("scopes",)), _NAME,
            checks.known_scopes,
        ),
        account.DeleteWorkloadBindingRequest: (_RID, _id("workload_binding_id"), _ETAG, _REASON),
        account.WhoAmIRequest: (),
        catalog.CreateProductRequest: (
            _RID,
            f.text("code", required=True, pattern=r"[A-Z0-9]{2,16}", reason="CODE_INVALID", words="must match ^[A-Z0-9]{2,16}$"),
            _EXTERNAL_ID, _SLUG, _REQUIRED_NAME, _URL, *_DATA, f.known_enum("key_storage"),
        ),
        catalog.GetProductRequest: _get("product_id"),
        catalog.ListProductsRequest: _PAGE,
        catalog.UpdateProductRequest: (
            _RID, _id("product_id"), _ETAG, f.mask(PRODUCT_FIELDS, never_empty=("slug", "display_name")),
            _EXTERNAL_ID, _SLUG, _NAME, _URL, *_DATA,
        ),
        catalog.DeleteProductRequest: (_RID, _id("product_id"), _ETAG, _REASON),
        catalog.CreateTierRequest: (
            _RID, _id("product_id"), _tier_slug("slug", required=True), _EXTERNAL_ID, _REQUIRED_NAME, _POSITION, *_DATA,
        ),
        catalog.GetTierRequest: _get("tier_id"),
        catalog.ListTiersRequest: (*_PAGE, _optional_id("product_id")),
        catalog.UpdateTierRequest: (
            _RID, _id("tier_id"), _ETAG, f.mask(TIER_FIELDS, never_empty=("slug", "display_name")), _EXTERNAL_ID,
            _tier_slug("slug"), _NAME, _POSITION, *_DATA,
        ),
        catalog.DeleteTierRequest: (_RID, _id("tier_id"), _ETAG, _REASON),
        catalog.CreatePolicyRequest: (
            _RID, _id("product_id"), f.known_enum("template"), _EXTERNAL_ID, _REQUIRED_NAME, *_TERMS,
            f.known_enum("expiration_basis"), checks.contradictions, checks.perpetual, *_DATA,
        ),
        catalog.GetPolicyRequest: _get("policy_id"),
        catalog.ListPoliciesRequest: (*_PAGE, _optional_id("product_id")),
        catalog.UpdatePolicyRequest: (
            _RID, _id("policy_id"), _ETAG, f.mask(POLICY_FIELDS, never_empty=("display_name",)), _EXTERNAL_ID, _NAME,
            *_TERMS, checks.contradictions, *_DATA,
        ),
        catalog.DeletePolicyRequest: (_RID, _id("policy_id"), _ETAG, _REASON),
        customers.GetCustomerRequest: (
            checks.one_customer, _optional_id("customer_id"), f.text("email"), f.text("subject_ref"),
        ),
        customers.ListCustomersRequest: (*_PAGE, f.text("email"), f.text("subject_ref")),
        customers.UpdateCustomerRequest: (
            _RID, _id("customer_id"), _ETAG, f.mask(CUSTOMER_FIELDS), _EMAIL, f.text("subject_ref"), _NAME, *_DATA,
        ),
        customers.CreateCustomerSessionRequest: (
            _RID, _id("customer_id"), f.duration("ttl", least=MIN_TTL, most=MAX_TTL), _REASON,
        ),
        customers.RevokeCustomerSessionsRequest: (_RID, _id("customer_id"), _REASON),
        customers.BanCustomerRequest: (_RID, _id("customer_id"), _ETAG, _REASON),
        customers.UnbanCustomerRequest: (_RID, _id("customer_id"), _ETAG, _REASON),
        licenses.CreateLicenseRequest: (_RID, _id("policy_id"), _optional_id("product_id"), *_NEW_LICENSE),
        licenses.GetLicenseRequest: _get("license_id"),
        licenses.ListLicensesRequest: (
            *_PAGE, _optional_id("product_id"), _optional_id("policy_id"), _optional_id("customer_id"),
            f.text("customer_email"), _optional_id("tier_id"), f.known_enum("status"),
        ),
        licenses.UpdateLicenseRequest: (
            _RID, _id("license_id"), _ETAG, f.mask(LICENSE_FIELDS), _EXTERNAL_ID, _NAME, f.timestamp("start_time"),
            f.timestamp("expire_time"), _OVERRIDES, *_DATA,
        ),
        licenses.SuspendLicenseRequest: _STATUS_CHANGE,
        licenses.ReinstateLicenseRequest: (*_STATUS_CHANGE, f.timestamp("expire_time")),
        licenses.RenewLicenseRequest: _STATUS_CHANGE,
        licenses.RevokeLicenseRequest: _STATUS_CHANGE,
        licenses.BanLicenseRequest: _STATUS_CHANGE,
        licenses.ChangeTierRequest: (*_STATUS_CHANGE, _optional_id("tier_id")),
        licenses.DeleteLicenseRequest: _STATUS_CHANGE,
        licenses.RotateLicenseKeyRequest: (
            *_STATUS_CHANGE, _KEY, f.duration("overlap", least=timedelta(0), most=timedelta(days=30)),
        ),
        licenses.RevealLicenseKeyRequest: (_RID, _id("license_id"), _REASON),
        licenses.ChangePolicyRequest: (*_STATUS_CHANGE, _id("policy_id")),
        licenses.TransferLicenseRequest: (*_STATUS_CHANGE, f.nested("customer", *_CUSTOMER_REF)),
        licenses.CheckInLicenseRequest: (_RID, _id("license_id"), _REASON),
        licenses.IncrementUsesRequest: (f.request_id(required=True), _id("license_id"), _REASON, _USES),
        licenses.DecrementUsesRequest: (f.request_id(required=True), _id("license_id"), _REASON, _USES),
        licenses.ImportLicensesRequest: (f.request_id(required=True), f.count("items", 1, MAX_IMPORT_ITEMS)),
        licenses.ResetUsesRequest: (f.request_id(required=True), _id("license_id"), _REASON),
        licenses.ListLicenseEventsRequest: (
            *_PAGE, _id("license_id"), checks.event_types, f.timestamp("start_time"), f.timestamp("end_time"),
        ),
        tokens.IssueLicenseFileRequest: (
            _RID, _id("license_id"), f.duration("ttl", least=MIN_FILE_TTL, most=MAX_FILE_TTL, reason="TTL_OUT_OF_RANGE"),
            f.text("license_key"), _FINGERPRINT, _REASON,
        ),
        tokens.ListLicenseFilesRequest: (*_PAGE, _id("license_id")),
        signing.SignFileRequest: (
            _RID, _id("license_id"), _id("machine_id"),
            f.text("fingerprint", required=True, min_chars=8, max_chars=256), checks.file_seq,
            f.duration("ttl", least=MIN_FILE_TTL, most=MAX_FILE_TTL, reason="TTL_OUT_OF_RANGE"), f.text("license_key"),
        ),
        tokens.RotateSigningKeyRequest: (
            _RID, _id("product_id"), f.duration("publication_lead", least=timedelta(0), most=MAX_PUBLICATION_LEAD), _REASON,
        ),
        tokens.RevokeSigningKeyRequest: (_RID, _id("signing_key_id"), _REASON),
        tokens.ListSigningKeysRequest: (*_PAGE, _id("product_id")),
        tokens.GetJsonWebKeySetRequest: (_id("key_set_id"),),
        validation.ValidateLicenseRequest: (*_VALIDATION, f.known_enum("view"), _CONSISTENCY),
        validation.BatchValidateLicensesRequest: (f.known_enum("view"), _CONSISTENCY, checks.batch),
        validation.WatchLicensesRequest: (
            _optional_id("product_id"), _optional_id("policy_id"), checks.license_ids, f.known_enum("view"), checks.no_full_view,
            f.text("resume_token", max_chars=MAX_TOKEN_CHARS),
        ),
        validation.ExplainValidationRequest: (
            f.required("validation"),
            f.nested(
                "validation", *_VALIDATION, checks.no_view("the explanation has none"),
                _CONSISTENCY, checks.no_consistency("it is explained as the record has it"),
            ),
        ),
    }
)  # fmt: skip


def check(request: Message) -> None:
    """Raises FIELD_INVALID naming every bad field of a request of this service."""
    f.check(request, TABLES[type(request)])
