"""Events: written in the transaction of the change, numbered without gaps per subject, with a pointer for the fan-out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from shared.db.pool import Transaction
from shared.ids import Prefix, new_id

SOURCE_API: Final = "api"
SCHEMA_VERSION: Final = 1

EVENT_TYPES: Final = frozenset(
    {
        "account.created", "account.updated", "account.suspended", "account.reinstated",
        "api_key.created", "api_key.rotated", "api_key.revoked",
        "workload_binding.created", "workload_binding.updated", "workload_binding.deleted",
        "product.created", "product.updated", "product.deleted",
        "policy.created", "policy.updated", "policy.deleted",
        "tier.created", "tier.updated", "tier.deleted",
        "customer.created", "customer.updated", "customer.banned", "customer.unbanned",
        "customer.session.created", "customer.session.revoked",
        "license.created", "license.updated", "license.suspended", "license.reinstated", "license.renewed",
        "license.revoked", "license.banned", "license.tier.updated", "license.deleted",
        "license.policy.updated", "license.customer.updated", "license.checked_in",
        "license.usage.incremented", "license.usage.decremented", "license.usage.reset", "license.limit_reached",
        "license.key.revealed", "license.key.rotated",
    }
)  # fmt: skip
"""The registry of event names. No event carries a key."""


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to `subject` (an id). `data` is the subject as it is now; `reason` is the caller's free text."""

    type: str
    subject: str
    data: Mapping[str, Any]
    actor: str
    reason: str = ""


async def emit(tx: Transaction, event: Event) -> int:
    """Stores the event; returns its number within the subject, from 1."""
    if event.type not in EVENT_TYPES:
        raise ValueError(f"{event.type} is not in the registry of events")
    tenant = (tx.tenant.account_id, tx.tenant.mode.value)
    seq: int = await tx.conn.fetchval(
        "INSERT INTO record.subject (account_id, mode, subject, seq) VALUES ($1, $2, $3, 1) "
        "ON CONFLICT (account_id, mode, subject) DO UPDATE SET seq = subject.seq + 1 RETURNING seq",
        *tenant, event.subject,
    )  # fmt: skip
    event_id = new_id(Prefix.EVENT)
    await tx.conn.execute(
        "INSERT INTO record.event (account_id, mode, event_id, type, subject, subject_seq, schema_version, actor, source, "
        "reason, data) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        *tenant, event_id, event.type, event.subject, seq, SCHEMA_VERSION, event.actor, SOURCE_API, event.reason,
        dict(event.data),
    )  # fmt: skip
    await tx.conn.execute(
        "INSERT INTO record.outbox (account_id, mode, event_id) VALUES ($1, $2, $3)", *tenant, event_id
    )
    return seq
