"""What a valid validation changes: the first anchors an expiry that waited for it, and each may count as a use."""

from __future__ import annotations

from dataclasses import fields
from typing import Final

from services.license import store
from services.license.commands.change_uses import UsesChange, apply_uses
from services.license.events import event_data
from services.license.model import Action, License
from services.license.terms import ExpirationBasis, UsesCounting
from services.license.transitions import anchored_by, count_uses
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import DomainError, Reason
from shared.facts.license import LicenseFacts
from shared.facts.machines import Limits, MachineTerms

_REASON = "validation"
_OF_THE_LICENSE: Final = (
    "status", "starts_at", "expires_at", "policy_id", "tier_id", "customer_id",
)  # fmt: skip
_OF_ITS_POLICY: Final = (
    "expiration_strategy", "grace_period", "max_uses", "uses_counted_by", "require_check_in", "check_in_interval",
    "check_in_count", "require_product_scope", "require_policy_scope", "require_user_scope",
)  # fmt: skip
_OF_MACHINES: Final = tuple(one.name for one in fields(MachineTerms) if one.name != "limits")
_LIMITS: Final = tuple(one.name for one in fields(Limits))


class ChangedMeanwhileError(Exception):
    """The license is gone, or is no longer what the verdict was made of."""


async def record_validation(tx: Transaction, *, actor: str, facts: LicenseFacts) -> License | None:
    """The license after it; None, and nothing is changed, where it has no use left. ChangedMeanwhileError: decide anew."""
    found = await store.lock_license(tx, facts.license_id)
    if found is None or not _is_as_decided(found, facts):
        raise ChangedMeanwhileError
    use = UsesChange(Action.INCREMENT_USES, found.license_id, 1, _REASON)
    counted = found.terms.uses_counted_by is UsesCounting.VALIDATION and found.max_uses is not None
    if counted:
        try:
            count_uses(found, use.action, use.uses, tx.now)
        except DomainError as error:
            if error.reason is Reason.INSUFFICIENT_USAGE:
                return None
            if error.reason is Reason.STATE_TRANSITION_INVALID:  # it has ended since the facts were loaded
                raise ChangedMeanwhileError from error
            raise
    changed = anchored_by(found, ExpirationBasis.FROM_FIRST_VALIDATION, tx.now)
    if changed.revision != found.revision:
        await store.update_license(tx, changed)
        await emit(tx, Event("license.updated", found.license_id, event_data(changed), actor, "first validation"))
    return await apply_uses(tx, actor=actor, found=changed, wanted=use) if counted else changed


def _is_as_decided(found: License, facts: LicenseFacts) -> bool:
    """Whether what the verdict was made of still holds; how many uses are counted is looked at by itself.

    Machines are not looked at again: their changes are no changes of the license, and come after this validation.
    """
    own, terms, machines = found.overrides, found.terms, facts.machines
    return (
        all(getattr(found, name) == getattr(facts, name) for name in _OF_THE_LICENSE)
        and all(getattr(terms, name) == getattr(facts, name) for name in _OF_ITS_POLICY)
        and all(getattr(terms, name) == getattr(machines, name) for name in _OF_MACHINES)
        and all(getattr(terms, f"max_{name}") == getattr(machines.limits, name) for name in _LIMITS)
        and all(getattr(own, f"max_{name}") == getattr(facts.overrides, name) for name in _LIMITS)
        and (found.expiry_anchored_at is not None) == facts.anchored
        and own.max_uses == facts.max_uses_override
        and (found.check_in_from or found.starts_at or found.created_at) == facts.check_in_from
        and found.check_in_since == facts.check_in_since
        and list(terms.overridable) == list(facts.overridable)
    )
