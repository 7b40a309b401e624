"""Terms of a policy that make no sense beside each other, or beside the machines that are there. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from services.license.terms import (
    ExpirationBasis,
    PolicyLimit,
    Terms,
    UsesCounting,
)
from shared.errors import DomainError, FieldViolation, Reason, fields_invalid
from shared.rules.heartbeats import HeartbeatCull, HeartbeatResurrection
from shared.rules.machine_terms import MachineLeasing, MachineUniqueness, ProcessLeasing, SeatAcquire


def refuse_contradictory(terms: Terms) -> None:
    """FIELD_INVALID naming every term that makes no sense beside the others."""
    found = (*_of_licenses(terms), *_of_machines(terms))
    if found:
        raise fields_invalid(found)


def _of_licenses(terms: Terms) -> Iterator[FieldViolation]:
    if terms.trial_duration is not None and not terms.is_trial:
        yield _contradiction("trial_duration", "needs is_trial")
    if terms.expiration_basis is not ExpirationBasis.FROM_CREATION and terms.first_duration is None:
        yield _contradiction("expiration_basis", "without a duration there is nothing to count")
    if terms.uses_counted_by is UsesCounting.VALIDATION and terms.max_uses is None:
        yield _contradiction("uses_counted_by", "VALIDATION needs max_uses")
    if terms.require_check_in and terms.check_in_interval is None:
        yield FieldViolation("check_in_interval", "REQUIRED", "is required with require_check_in")


def _of_machines(terms: Terms) -> Iterator[FieldViolation]:
    if terms.machine_leasing is MachineLeasing.PER_USER and not _limits(terms, PolicyLimit.MAX_MACHINES):
        yield _contradiction("machine_leasing", "PER_USER needs max_machines, or that licenses may override it")
    if terms.process_leasing is not ProcessLeasing.PER_MACHINE and not _limits(terms, PolicyLimit.MAX_PROCESSES):
        words = f"{terms.process_leasing} needs max_processes, or that licenses may override it"
        yield _contradiction("process_leasing", words)
    if terms.seat_acquire is not SeatAcquire.REJECT and not terms.floating:
        yield _contradiction("seat_acquire", f"{terms.seat_acquire} needs floating")
    revives_always = terms.heartbeat_resurrection is HeartbeatResurrection.ALWAYS_REVIVE
    if revives_always and terms.heartbeat_cull is not HeartbeatCull.KEEP_DEAD:
        yield _contradiction("heartbeat_resurrection", "ALWAYS_REVIVE needs KEEP_DEAD")
    if terms.max_transfers is not None and terms.floating and not terms.allow_machine_transfer:
        yield _contradiction("max_transfers", "floating seats are given up freely: needs allow_machine_transfer")


def refuse_stricter_uniqueness(before: Terms, after: Terms, policy_id: str, *, moves: bool, any_machines: bool) -> None:
    """POLICY_INCOMPATIBLE where machines that are there would have to be the only ones of their fingerprints among more.

    Args:
        before: What they are under.
        after: What they would be under: a policy as it changes, or another one.
        policy_id: The policy that refuses.
        moves: Whether it is another one, whose licenses have machines of their own.
        any_machines: Whether there are machines that are not deactivated.
    """
    order = list(MachineUniqueness)
    old, new = order.index(before.machine_uniqueness), order.index(after.machine_uniqueness)
    among_others = moves and after.machine_uniqueness is MachineUniqueness.UNIQUE_PER_POLICY
    if any_machines and (new > old or (new == old and among_others)):
        raise DomainError(
            Reason.POLICY_INCOMPATIBLE,
            f"machines are active that need not be {after.machine_uniqueness} yet: deactivate them first",
            metadata={"policyId": policy_id},
        )


def _limits(terms: Terms, limit: PolicyLimit) -> bool:
    """Whether there is, or may be, such a limit."""
    return getattr(terms, limit.value.lower()) is not None or limit in terms.overridable


def _contradiction(field: str, words: str) -> FieldViolation:
    return FieldViolation(field, "CONTRADICTION", words)
