"""The one registry of events: every name that is told, what it means, what it carries, and its names elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from shared.events import payloads
from shared.events.payloads import Payload
from shared.events.schema import Field, Kind, faults


@dataclass(frozen=True, slots=True)
class EventType:
    """One name. `also` is what its data holds beside the payload's fields; `aliases` are published names of the same."""

    name: str
    payload: Payload
    means: str
    also: tuple[Field, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[Field, ...]:
        return (*self.payload.fields, *self.also)


ENVELOPE: Final = (
    Field("id", Kind.TEXT, "the event (`evt_...`), the same however often it is told"),
    Field("type", Kind.TEXT, "its name"),
    Field("schema_version", Kind.WHOLE, "the version of the schema of `data`"),
    Field("account_id", Kind.TEXT, "the account (`acc_...`)"),
    Field("mode", Kind.TEXT, "the world", values=("TEST", "LIVE")),
    Field("subject", Kind.TEXT, "the id of what it happened to"),
    Field("subject_seq", Kind.WHOLE, "its number within the subject: 1, 2, 3, without a gap"),
    Field("occurred_at", Kind.TIME, "when, by Postgres"),
    Field("actor", Kind.TEXT, "who: the id of the key or workload binding; `bootstrap`; `worker`"),
    Field("source", Kind.TEXT, "where it came from: a call, or time itself", values=("api", "worker")),
    Field("reason", Kind.TEXT, "why, in the words of who asked; may be empty"),
    Field("data", Kind.OBJECT, "the subject as it is after the change"),
)
"""What every event has."""

_ACCOUNT, _API_KEY, _BINDING = payloads.ACCOUNT, payloads.API_KEY, payloads.WORKLOAD_BINDING
_PRODUCT, _TIER, _POLICY = payloads.PRODUCT, payloads.TIER, payloads.POLICY
_CUSTOMER, _LICENSE = payloads.CUSTOMER, payloads.LICENSE
_MACHINE, _SIGNING_KEY = payloads.MACHINE, payloads.SIGNING_KEY

_AT: Final = (
    Field("boundary_time", Kind.TIME, "the moment itself; where no process ran, `occurred_at` may be much later"),
)
_VALIDATED_AT: Final = Field("validated_at", Kind.TIME, "when, as the validation's `evaluated_at` says")

_EVENTS: Final = (
    EventType("account.created", _ACCOUNT, "an operator made the account"),
    EventType("account.updated", _ACCOUNT, "an operator changed its name or its limits"),
    EventType("account.suspended", _ACCOUNT, "an operator stopped it: its keys do not work"),
    EventType("account.reinstated", _ACCOUNT, "an operator lets it work again"),
    EventType("api_key.created", _API_KEY, "an API key was made"),
    EventType("api_key.rotated", _API_KEY, "a new key replaces it; it works on until `expires_at`"),
    EventType("api_key.revoked", _API_KEY, "it was ended"),
    EventType("workload_binding.created", _BINDING, "an operator bound a workload"),
    EventType("workload_binding.updated", _BINDING, "its name or scopes changed"),
    EventType("workload_binding.deleted", _BINDING, "it was deleted; `data` is what it was"),
    EventType("product.created", _PRODUCT, "a product was made"),
    EventType("product.updated", _PRODUCT, "it changed"),
    EventType("product.deleted", _PRODUCT, "it was deleted; `data` is what it was"),
    EventType("tier.created", _TIER, "a tier was made"),
    EventType("tier.updated", _TIER, "it changed, for all its licenses"),
    EventType("tier.deleted", _TIER, "it was deleted; `data` is what it was"),
    EventType("policy.created", _POLICY, "a policy was made"),
    EventType("policy.updated", _POLICY, "its terms changed, for all its licenses; they have no events of their own"),
    EventType("policy.deleted", _POLICY, "it was deleted; `data` is what it was"),
    EventType("customer.created", _CUSTOMER, "a customer was made, with a first license"),
    EventType("customer.updated", _CUSTOMER, "what is said about the customer changed"),
    EventType("customer.banned", _CUSTOMER, "all licenses of the customer are refused"),
    EventType("customer.unbanned", _CUSTOMER, "the licenses are again what they are by themselves"),
    EventType("customer.session.created", payloads.CUSTOMER_SESSION, "a session of the customer was made"),
    EventType("customer.session.revoked", payloads.ENDED_SESSIONS, "all sessions of the customer were ended"),
    EventType("signing_key.created", _SIGNING_KEY, "a key of a product was made, and is published"),
    EventType("signing_key.activated", _SIGNING_KEY, "it signs from now on"),
    EventType("signing_key.retired", _SIGNING_KEY, "it signs no more; what it has signed is good still"),
    EventType("signing_key.revoked", _SIGNING_KEY, "it is published no more, and what it has signed is refused"),
    EventType("license.created", _LICENSE, "a license was issued"),
    EventType("license.updated", _LICENSE, "what is said about it changed, its period too"),
    EventType(
        "license.validated.first",
        _LICENSE,
        "it was found valid for the first time",
        (_VALIDATED_AT,),
        ("license.activated",),
    ),
    EventType("license.suspended", _LICENSE, "it was disabled for a while"),
    EventType("license.reinstated", _LICENSE, "it works again"),
    EventType("license.expiring_soon", _LICENSE, "it expires in three days", _AT),
    EventType("license.grace_started", _LICENSE, "its expiry has passed, and it works on for its policy's grace", _AT),
    EventType("license.expired", _LICENSE, "its expiry has passed, and its grace if there is one", _AT),
    EventType(
        "license.check_in.required_soon",
        _LICENSE,
        "its next check-in is due in three days, or in a quarter of its interval if that is less",
        _AT,
    ),
    EventType("license.check_in.overdue", _LICENSE, "it was to check in by now, and has not", _AT),
    EventType("license.renewed", _LICENSE, "its expiry was moved by its policy's duration"),
    EventType("license.revoked", _LICENSE, "it was ended for good"),
    EventType("license.banned", _LICENSE, "it was ended for good, for abuse"),
    EventType("license.policy.updated", _LICENSE, "it is under another policy"),
    EventType("license.tier.updated", _LICENSE, "it has another tier, or none"),
    EventType("license.customer.updated", _LICENSE, "it has another holder, or none"),
    EventType("license.checked_in", _LICENSE, "it checked in"),
    EventType(
        "license.checked_out",
        _LICENSE,
        "a license file was issued",
        (
            Field("license_file_id", Kind.TEXT, "the id of the file; the file itself is in no event"),
            Field("file_seq", Kind.WHOLE, "its number among the files of the license, or of the machine, from 1"),
            Field("file_expires_at", Kind.TIME, "when it ends"),
            Field("signing_key_id", Kind.TEXT, "the key that it is signed with"),
        ),
    ),
    EventType("license.usage.incremented", _LICENSE, "uses were counted"),
    EventType("license.usage.decremented", _LICENSE, "uses were given back"),
    EventType("license.usage.reset", _LICENSE, "uses are counted from 0 again"),
    EventType("license.limit_reached", _LICENSE, "its last use was counted"),
    EventType("license.deleted", _LICENSE, "it was deleted; `data` is what it was"),
    EventType("machine.activated", _MACHINE, "it took a seat"),
    EventType("machine.updated", _MACHINE, "what is said about it, or what it is known by, changed"),
    EventType("machine.deactivated", _MACHINE, "it lost its seat; `deactivation_reason` says why"),
    EventType("machine.transferred", _MACHINE, "it got the seat of another machine, which is deactivated"),
    EventType("machine.heartbeat.started", _MACHINE, "its first heartbeat came", (), ("machine.heartbeat",)),
    EventType("machine.heartbeat.dead", _MACHINE, "it was not heard of in time", (), ("machine.dead",)),
    EventType("machine.heartbeat.resurrected", _MACHINE, "it was dead, and was heard of again"),
    EventType("machine.heartbeat.reset", _MACHINE, "its heartbeats begin anew"),
    EventType("seat.queued", payloads.QUEUED_SEAT, "a machine waits for a seat; told of the license"),
    EventType(
        "seat.granted", _MACHINE, "it leased a seat, or leased the one that it has anew: `lease_epoch` is the lease"
    ),
    EventType("seat.released", _MACHINE, "its leased seat was given up by whoever had the lease"),
    EventType(
        "seat.expired", _MACHINE, "its lease was over, and its seat was freed; told when somebody comes to the seats"
    ),
    EventType("seat.evicted", _MACHINE, "its leased seat was taken from it"),
    EventType(
        "machine.checked_out",
        _MACHINE,
        "a machine file was issued",
        (
            Field("machine_file_id", Kind.TEXT, "the id of the file; the file itself is in no event"),
            Field("file_seq", Kind.WHOLE, "its number among the files of the license, or of the machine, from 1"),
            Field("file_expires_at", Kind.TIME, "when it ends"),
            Field("signing_key_id", Kind.TEXT, "the key that it is signed with"),
        ),
    ),
    EventType("machine.checked_in", _MACHINE, "it is back before its file has ended"),
    EventType(
        "machine.activation_rejected", payloads.REFUSED_ACTIVATION, "a machine found no seat; told of the license"
    ),
    EventType("process.created", payloads.PROCESS, "a process took a place; told of its machine"),
    EventType("process.deleted", payloads.PROCESS, "it ended and gave its place up; told of its machine"),
    EventType(
        "process.heartbeat.dead",
        payloads.PROCESS,
        "it was not heard of in time, and lost its place; told of its machine",
    ),
    EventType("process.rejected", payloads.REFUSED_PROCESS, "a process found no place; told of the license"),
    EventType("license.key.revealed", _LICENSE, "its key was shown again, to `actor`"),
    EventType("license.key.rotated", _LICENSE, "it has another key"),
)

EVENTS: Final[Mapping[str, EventType]] = MappingProxyType({event.name: event for event in _EVENTS})
"""Every event that is told, by its name."""

ALIASES: Final[Mapping[str, str]] = MappingProxyType({alias: e.name for e in _EVENTS for alias in e.aliases})
"""Names elsewhere -> names here. Whoever asks for events by type may use either; what is told has the name here."""


def resolve(name: str) -> EventType | None:
    """The event of a name or an alias; None for a name that there is not."""
    return EVENTS.get(ALIASES.get(name, name))


def faults_of(envelope: Mapping[str, object]) -> Iterator[str]:
    """What is wrong with an event as it is told: its envelope, its name, and its data by the schema of that name."""
    yield from faults(envelope, ENVELOPE)
    known = EVENTS.get(str(envelope.get("type")))
    if known is None:
        yield f"{envelope.get('type')!r} is not in the registry of events"
        return
    if envelope.get("schema_version") != known.payload.version:
        yield f"schema_version is not {known.payload.version}"
    yield from (f"data.{fault}" for fault in faults(envelope.get("data"), known.fields))
