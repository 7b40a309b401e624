"""What the `data` of events holds: a table per kind of subject, as published. docs/events.md is made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shared.events.schema import Field, Kind, or_null


@dataclass(frozen=True, slots=True)
class Payload:
    """The `data` of events about one kind of subject. `version` grows when a field goes or changes its meaning."""

    name: str
    version: int
    fields: tuple[Field, ...]


def _text(name: str, means: str, *values: str) -> Field:
    return Field(name, Kind.TEXT, means, values=values)


def _flag(name: str, means: str) -> Field:
    return Field(name, Kind.FLAG, means)


def _time(name: str, means: str) -> Field:
    return Field(name, Kind.TIME, means)


def _seconds(name: str, means: str) -> Field:
    return Field(name, Kind.SECONDS, means)


_EXTERNAL_ID: Final = or_null(_text("external_id", "the caller's own key of it"))
_NAME: Final = _text("display_name", "the name to show")
_PRODUCT_ID: Final = _text("product_id", "its product")
_DATA: Final = (
    Field("labels", Kind.LABELS, "its labels"),
    Field("metadata", Kind.OBJECT, "the caller's own data"),
)
_STAMPS: Final = (
    Field("revision", Kind.WHOLE, "counts the changes of the subject, from 1"),
    _time("created_at", "when it was created"),
    _time("updated_at", "when it was last changed"),
)

ACCOUNT: Final = Payload(
    "account",
    1,
    (
        _text("account_id", "the id"), _EXTERNAL_ID, _NAME,
        _text("status", "whether it works", "active", "suspended"),
        Field("limits", Kind.OBJECT, "the limits that are set, whole numbers by name"), *_STAMPS,
    ),
)  # fmt: skip

API_KEY: Final = Payload(
    "api_key",
    1,
    (
        _text("api_key_id", "the id; the key itself is in no event"),
        _text("kind", "where it may be kept", "SECRET", "PUBLISHABLE"), _EXTERNAL_ID, _NAME,
        Field("scopes", Kind.TEXTS, "what it may do"),
        or_null(_time("expires_at", "when it ends")),
        or_null(_time("revoked_at", "when it was revoked")),
        or_null(_text("replaced_by_id", "the key that replaces it, once it is rotated")), *_STAMPS,
    ),
)  # fmt: skip

WORKLOAD_BINDING: Final = Payload(
    "workload_binding",
    1,
    (
        _text("workload_binding_id", "the id"),
        _text("account_id", "the account in which its callers act"),
        _text("mode", "the mode in which they act", "TEST", "LIVE"), _EXTERNAL_ID, _NAME,
        _text("spiffe_id_pattern", "the callers"),
        Field("scopes", Kind.TEXTS, "what they may do"), *_STAMPS,
    ),
)  # fmt: skip

PRODUCT: Final = Payload(
    "product",
    1,
    (
        _text("product_id", "the id"), _EXTERNAL_ID,
        _text("code", "the prefix of its license keys"),
        _text("slug", "its short name"), _NAME,
        _text("url", "its page; may be empty"),
        _text("key_storage", "how its license keys are kept", "SEALED", "HASH_ONLY"), *_DATA, *_STAMPS,
    ),
)  # fmt: skip

TIER: Final = Payload(
    "tier",
    1,
    (
        _text("tier_id", "the id"), _EXTERNAL_ID, _PRODUCT_ID,
        _text("slug", "its short name"), _NAME,
        Field("position", Kind.WHOLE, "its place; a greater one is higher"), *_DATA, *_STAMPS,
    ),
)  # fmt: skip

_UNIQUENESS: Final = ("UNIQUE_PER_LICENSE", "UNIQUE_PER_POLICY", "UNIQUE_PER_PRODUCT", "UNIQUE_PER_ACCOUNT")
_MATCHING: Final = ("MATCH_ANY", "MATCH_TWO", "MATCH_MOST", "MATCH_ALL")

POLICY: Final = Payload(
    "policy",
    1,
    (
        _text("policy_id", "the id"), _EXTERNAL_ID, _PRODUCT_ID, _NAME,
        _text("template", "what it was made from", "custom", "desktop_app", "cli_tool", "saas", "trial"),
        or_null(_seconds("duration", "how long a license lasts; null means for ever")),
        _flag("is_trial", "whether its licenses are trials"),
        or_null(_seconds("trial_duration", "how long a license lasts before its first renewal")),
        _text(
            "expiration_strategy", "what becomes of an expired license",
            "RESTRICT_ACCESS", "REVOKE", "MAINTAIN_ACCESS", "ALLOW_ACCESS",
        ),
        _seconds("grace_period", "how long a license works on after its expiry"),
        _text(
            "expiration_basis", "from when on the duration counts",
            "FROM_CREATION", "FROM_FIRST_VALIDATION", "FROM_FIRST_USE", "FROM_FIRST_ACTIVATION",
        ),
        _text("renewal_basis", "what a renewal adds to", "FROM_EXPIRY", "FROM_NOW", "FROM_NOW_IF_EXPIRED"),
        _text("transfer_strategy", "what becomes of the expiry of a license that comes", "KEEP_EXPIRY", "RESET_EXPIRY"),
        or_null(Field("max_machines", Kind.WHOLE, "how many machines; null means any number")),
        or_null(Field("max_uses", Kind.WHOLE, "how many uses; null means any number")),
        _text("uses_counted_by", "what counts as a use", "EXPLICIT", "VALIDATION"),
        _text(
            "overage_strategy", "by how much limits may be exceeded",
            "NO_OVERAGE", "ALLOW_1_25X", "ALLOW_1_5X", "ALLOW_2X", "ALWAYS_ALLOW",
        ),
        _flag("floating", "whether machines share seats"),
        _flag("require_fingerprint", "whether a fingerprint must be given"),
        _flag("require_heartbeat", "whether machines must call home"),
        _seconds("heartbeat_interval", "how often"),
        _flag("offline_allowed", "whether license files are issued"),
        _seconds("offline_max_ttl", "for how long at most"),
        _flag("require_check_in", "whether licenses must check in"),
        or_null(_text("check_in_interval", "how often, with `check_in_count`", "DAY", "WEEK", "MONTH", "YEAR")),
        Field("check_in_count", Kind.WHOLE, "how many intervals"),
        _flag("require_product_scope", "whether validations must name the product"),
        _flag("require_policy_scope", "whether they must name the policy"),
        _flag("require_user_scope", "whether they must name the user"),
        _flag("protected", "whether its holder may change nothing of a license"),
        _text("authentication", "with what software may prove a license", "LICENSE", "TOKEN", "MIXED", "NONE"),
        Field("overridable", Kind.TEXTS, "the limits that licenses may override"),
        _seconds("stale_ok_for", "for how long validations may be answered while the record is away"),
        _flag("strict", "whether validations look at the limits on machines"),
        or_null(Field("max_users", Kind.WHOLE, "how many users of machines; null means any number")),
        or_null(Field("max_cores", Kind.WHOLE, "how many cores of all machines together; null means any number")),
        or_null(Field("max_memory_bytes", Kind.WHOLE, "how many bytes of memory together; null means any number")),
        or_null(Field("max_disk_bytes", Kind.WHOLE, "how many bytes of disk together; null means any number")),
        or_null(Field("max_processes", Kind.WHOLE, "how many processes; null means any number")),
        _text("machine_uniqueness", "in what a fingerprint names one machine", *_UNIQUENESS),
        _text("machine_matching", "how many parts of a fingerprint must match", *_MATCHING),
        _text("component_uniqueness", "in what a component belongs to one machine", "UNIQUE_PER_MACHINE", *_UNIQUENESS),
        _text("component_matching", "how many components must match", *_MATCHING),
        _text("machine_leasing", "what `max_machines` counts over", "PER_LICENSE", "PER_USER"),
        _text("process_leasing", "what `max_processes` counts over", "PER_MACHINE", "PER_LICENSE", "PER_USER"),
        _text(
            "seat_acquire", "what a machine does that finds no seat",
            "REJECT", "QUEUE", "EVICT_OLDEST", "EVICT_DEAD_FIRST",
        ),
        _flag("require_machine_scope", "whether validations must name the machine"),
        _flag("require_components_scope", "whether they must name its components"),
        _text("heartbeat_basis", "from when on heartbeats are due", "FROM_FIRST_PING", "FROM_CREATION"),
        _text("heartbeat_cull", "what becomes of dead machines", "DEACTIVATE_DEAD", "KEEP_DEAD"),
        _text(
            "heartbeat_resurrection", "for how long a heartbeat brings a dead machine back",
            "NO_REVIVE", "REVIVE_1_MINUTE", "REVIVE_2_MINUTES", "REVIVE_5_MINUTES", "REVIVE_10_MINUTES",
            "REVIVE_15_MINUTES", "ALWAYS_REVIVE",
        ),
        or_null(Field("max_transfers", Kind.WHOLE, "how many machines may be given up in a period; null means any number")),
        _seconds("transfer_period", "the period that `max_transfers` counts in"),
        _flag("allow_machine_transfer", "whether who holds a license may pass a machine's seat on"), *_DATA, *_STAMPS,
    ),
)  # fmt: skip

CUSTOMER: Final = Payload(
    "customer",
    1,
    (
        _text("customer_id", "the id"),
        or_null(_text("email", "the customer's email address")),
        or_null(_text("subject_ref", "the caller's own name of the customer")), _NAME,
        or_null(_time("banned_at", "since when the customer is banned")),
        _text("ban_reason", "why; empty when not banned, or no reason was given"), *_DATA, *_STAMPS,
    ),
)  # fmt: skip

CUSTOMER_SESSION: Final = Payload(
    "customer_session",
    1,
    (
        _text("customer_session_id", "the id; its token is in no event"), _text("customer_id", "whose it is"),
        _time("created_at", "when it was made"), _time("expires_at", "when it ends"),
    ),
)  # fmt: skip

ENDED_SESSIONS: Final = Payload(
    "ended_sessions",
    1,
    (
        _text("customer_id", "whose they were"), Field("customer_session_ids", Kind.TEXTS, "which"),
        _time("ended_at", "when"),
    ),
)  # fmt: skip

SIGNING_KEY: Final = Payload(
    "signing_key",
    1,
    (
        _text("signing_key_id", "the id, and the `kid` of what it signs"), _PRODUCT_ID,
        _text("purpose", "what it signs", "FILE"), _text("alg", "how it signs", "ED25519"),
        _text("status", "the state", "PENDING", "ACTIVE", "RETIRED", "REVOKED"),
        Field("public_jwk", Kind.OBJECT, "the public half; the private one is in no event"),
        _time("activates_at", "from when on it signs, or has signed"),
        or_null(_time("retired_at", "when it ceased to sign")),
        or_null(_time("revoked_at", "when it was revoked")), *_STAMPS,
    ),
)  # fmt: skip

LICENSE: Final = Payload(
    "license",
    1,
    (
        _text("license_id", "the id; its key is in no event"), _EXTERNAL_ID, _PRODUCT_ID,
        _text("policy_id", "its policy"),
        or_null(_text("tier_id", "its tier")),
        or_null(_text("customer_id", "who holds it")), _NAME,
        _text("status", "its state", "active", "suspended", "expired", "revoked", "banned"),
        _text("status_reason", "why it was suspended, revoked or banned; may be empty"),
        or_null(_time("starts_at", "when it starts to be valid; null means from its creation")),
        or_null(_time("expires_at", "when it expires; null means never, or not yet")),
        or_null(_time("expiry_anchored_at", "when its duration began to count; null means not yet, or since its first machine")),
        or_null(_time("check_in_from", "what its next check-in counts from")),
        or_null(_time("last_check_in_at", "when it last checked in")),
        Field("overrides", Kind.OBJECT, "its own limits, by their names in the policy; `offline_max_ttl` in seconds"),
        Field("uses", Kind.WHOLE, "how many uses were counted"), *_DATA, *_STAMPS,
    ),
)  # fmt: skip


MACHINE: Final = Payload(
    "machine",
    1,
    (
        _text("machine_id", "the id; its fingerprints and its secret are in no event"), _EXTERNAL_ID,
        _text("license_id", "the license whose seat it holds, or held"), _PRODUCT_ID,
        _text("policy_id", "the policy under which it was activated"),
        or_null(_text("user_id", "the customer who uses it")),
        _text("identity_kind", "what it is known by", "FINGERPRINT", "FINGERPRINT_SET", "WORKLOAD"),
        Field("fingerprint_names", Kind.TEXTS, "the names of the fingerprints that it is known by"),
        Field("component_names", Kind.TEXTS, "the names of its parts"),
        Field("generation", Kind.WHOLE, "how often the identity was activated on the license"), _NAME,
        _text("hostname", "its name in its network"),
        _text("platform", "what it runs", "", "MACOS", "WINDOWS", "LINUX", "DOCKER", "KUBERNETES", "OTHER"),
        _text("ip", "its address"),
        or_null(Field("cores", Kind.WHOLE, "how many cores it has")),
        or_null(Field("memory_bytes", Kind.WHOLE, "how much memory it has")),
        or_null(Field("disk_bytes", Kind.WHOLE, "how much space on disks it has")),
        _text("heartbeat_status", "how its heartbeats stand", "NOT_STARTED", "ALIVE", "DEAD"),
        or_null(_time("last_heartbeat_at", "its last heartbeat")),
        or_null(_time("died_at", "when it was dead")),
        or_null(_time("offline_until", "until when it may be offline")),
        or_null(Field("lease_epoch", Kind.WHOLE, "the number of its lease, where it has one")),
        or_null(_time("lease_expires_at", "when its lease ends")),
        _time("activated_at", "when it was activated"),
        or_null(_time("deactivated_at", "when it lost its seat")),
        or_null(
            _text(
                "deactivation_reason", "why", "SELF", "CUSTOMER", "ADMIN", "EVICTED", "TRANSFERRED", "LICENSE_ENDED", "CULLED",
                "LEASE_EXPIRED", "REPLACED",
            )
        ), *_DATA,
        Field("revision", Kind.WHOLE, "counts the changes of the subject, from 1"),
        _time("updated_at", "when it was last changed"),
    ),
)  # fmt: skip

REFUSED_ACTIVATION: Final = Payload(
    "refused_activation",
    1,
    (
        _text("license_id", "the license that had no seat left"),
        _text("limit", "the limit of its policy that would have been exceeded"),
        Field("allowed", Kind.WHOLE, "how many it allows"),
        Field("machines", Kind.WHOLE, "how many machines it had"),
    ),
)
"""Its subject is the license."""

QUEUED_SEAT: Final = Payload(
    "queued_seat",
    1,
    (
        _text("license_id", "the license that had no seat left"),
        _text("ticket_id", "the place among those who wait (`wait_...`)"),
        Field("position", Kind.WHOLE, "1 for who is the next"),
        or_null(_text("user_id", "the customer who is to use the machine")),
    ),
)
"""Its subject is the license."""

PROCESS: Final = Payload(
    "process",
    1,
    (
        _text("process_id", "the process (`mproc_...`)"),
        _text("machine_id", "the machine that it runs on"),
        _text("license_id", "the license whose place it had"),
        or_null(_text("user_id", "the customer who used the machine when it started")),
        _text("name", "what it was called"),
        _time("started_at", "when it started"),
        _time("last_heartbeat_at", "its last heartbeat"),
    ),
)
"""Its subject is the machine."""

REFUSED_PROCESS: Final = Payload(
    "refused_process",
    1,
    (
        _text("license_id", "the license that had no place left"),
        _text("machine_id", "the machine that it was to run on"),
        _text("limit", "the limit of its policy that would have been exceeded"),
        Field("allowed", Kind.WHOLE, "how many it allows"),
        Field("processes", Kind.WHOLE, "how many there were of those that the policy counts together"),
    ),
)
"""Its subject is the license."""

PAYLOADS: Final = (
    ACCOUNT,
    API_KEY,
    WORKLOAD_BINDING,
    PRODUCT,
    TIER,
    POLICY,
    CUSTOMER,
    CUSTOMER_SESSION,
    ENDED_SESSIONS,
    SIGNING_KEY,
    LICENSE,
    MACHINE,
    REFUSED_ACTIVATION,
    QUEUED_SEAT,
    PROCESS,
    REFUSED_PROCESS,
)
