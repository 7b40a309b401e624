"""Validations while the record is away: from memory without a lease, where the license's policy allows it."""

from __future__ import annotations

from collections.abc import Sequence

from services.license.facts import is_answered_by_record
from services.license.resources import Resources
from shared.db.faults import record_unreachable
from shared.errors import DomainError
from shared.facts.license import Loaded, Wanted
from shared.freshness.reader import Source
from shared.freshness.token import Revision
from shared.tenancy import Principal


async def load_one(r: Resources, principal: Principal, wanted: Wanted, after: Revision | None) -> Loaded:
    """The facts of one license: as fresh as a lease has them, or in grace. RECORD_UNREACHABLE where neither can be."""
    tenant = principal.tenant

    def stale() -> Loaded | None:
        return _stale(r, principal, wanted, after)

    if principal.stale_as_of is None:
        return await r.facts.or_stale(lambda: r.facts.one(tenant, wanted, after), stale)
    found = stale()
    if found is None:
        raise record_unreachable()
    return found


async def load_many(
    r: Resources, principal: Principal, wanted: Sequence[Wanted], after: Revision | None
) -> Sequence[Loaded | DomainError]:
    """Each in its place, all at one state of the record. In grace each is answered or refused for itself; RECORD_UNREACHABLE
    where none can be answered."""
    tenant = principal.tenant

    def stale() -> Sequence[Loaded | DomainError] | None:
        found = [_stale(r, principal, one, after) for one in wanted]
        if not any(found):
            return None
        return [record_unreachable() if one is None else one for one in found]

    if principal.stale_as_of is None:
        return await r.facts.or_stale(lambda: r.facts.many(tenant, wanted, after), stale)
    found = stale()
    if found is None:
        raise record_unreachable()
    return found


def _stale(r: Resources, principal: Principal, wanted: Wanted, after: Revision | None) -> Loaded | None:
    """What may be answered without a lease. Whoever was let in so is answered from the state that said who it is."""
    if principal.stale_as_of not in (None, r.facts.tail.state.asked_at):
        return None
    found = r.facts.stale(principal.tenant, wanted, after)
    if found is None or found.facts is None or is_answered_by_record(found.facts):
        return None
    age_s = r.facts.tail.age_s
    return found if age_s is not None and age_s < found.facts.stale_ok_for.total_seconds() else None


def refuse(principal: Principal) -> None:
    """RECORD_UNREACHABLE for who was let in without a lease, and asks for what grace does not give."""
    if principal.stale_as_of is not None:
        raise record_unreachable()


def refuse_view(loaded: Loaded) -> None:
    """RECORD_UNREACHABLE where the license itself is asked for, which memory does not have."""
    if loaded.source is Source.GRACE:
        raise record_unreachable()
