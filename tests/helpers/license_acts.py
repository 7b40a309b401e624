"""What becomes of the model when something is asked of it: the next state, the events, or why it is refused. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from tests.helpers.license_catalog_acts import (
    Act,
    Done,
    Made,
    RefusedError,
    Told,
    change_ban,
    create_policy,
    create_product,
    create_tier,
    delete_policy,
    delete_tier,
    holder,
    nobody,
    refuse,
    update_customer,
    update_policy,
    update_tier,
)
from tests.helpers.license_model import (
    Key,
    License,
    State,
    Terms,
    canonical,
    is_over,
    limit_of,
    put,
    status_of,
    verdict,
)

_LIFE: Final = """
               suspend    reinstate  renew      revoke   ban     change     use
    active     suspended  -          active     revoked  banned  active     active
    suspended  -          active     suspended  revoked  banned  suspended  -
    expired    -          active     active     revoked  banned  active     -
    revoked    -          -          -          -        -       -          -
    banned     -          -          -          -        -       -          -
"""
_HEAD, *_ROWS = (line.split() for line in _LIFE.strip().splitlines())
TABLE: Final = {(row[0], action): cell for row in _ROWS for action, cell in zip(_HEAD, row[1:], strict=True)}
"""The table of docs/licensing.md: effective status and action, and the status that somebody's doing leaves."""
CHANGES: Final = frozenset(
    {"update", "change_tier", "change_policy", "transfer", "rotate_key", "decrement_uses", "reset_uses"}
)
USES: Final = frozenset({"increment_uses", "check_in"})


def apply(state: State, act: Act, now: datetime, made: Made = Made()) -> Done:  # noqa: B008 - it is frozen
    """What becomes of `state` at `now`. A refusal changes nothing."""
    try:
        return _ACTS[act.kind](state, act, now, made)
    except RefusedError as error:
        return Done(state, refusals=frozenset(error.args))


def _about(found: License, terms: Terms, now: datetime) -> dict[str, Any]:
    names = ("status_reason", "policy_id", "revision", "uses", "display_name")
    seen = {name: getattr(found, name) for name in names}
    seen |= {name: getattr(found, name) or None for name in ("tier_id", "customer_id", "external_id")}
    return seen | {
        "status": status_of(found, terms, now),
        "expires_at": found.expires_at and found.expires_at.isoformat(),
        "starts_at": found.starts_at and found.starts_at.isoformat(),
    }


def _create(state: State, act: Act, now: datetime, made: Made) -> Done:
    policy = state.policies.get(act["policy_id"])
    if policy is None:
        raise RefusedError("POLICY_NOT_FOUND")
    terms, start, end = policy.terms, act["start_time"], act["expire_time"]
    tier = state.tiers.get(act["tier_id"] or "")
    if end is None and not terms.waits and terms.at_first is not None:
        end = (start or now) + terms.at_first
    refuse(
        TIER_NOT_FOUND=bool(act["tier_id"]) and tier is None,
        FIELD_INVALID=(tier is not None and tier.product_id != policy.product_id)
        or (end is not None and end <= (start or now)),
        KEY_TAKEN=bool(act["key"]) and canonical(act["key"]) in state.keys,
        EXTERNAL_ID_TAKEN=_is_taken(state, act["external_id"], ""),
        POLICY_INCOMPATIBLE=act["max_uses"] is not None and "MAX_USES" not in terms.overridable,
        **nobody(state, act["customer"]),
    )
    after, customer_id, told = holder(state, act["customer"], made)
    found = License(
        policy.product_id, act["policy_id"], act["tier_id"] or "", customer_id, made.key[-4:], start, end,
        act["expire_time"] is not None or not terms.waits, now, now, act["external_id"] or "",
        act["display_name"] or "", own_max_uses=act["max_uses"],
    )  # fmt: skip
    keys = put(after.keys, canonical(made.key), Key(made.id))
    after = replace(after, licenses=put(after.licenses, made.id, found), keys=keys)
    return Done(after, (*told, Told(made.id, "license.created", "", _about(found, terms, now))))


def _is_taken(state: State, external_id: str | None, mine: str) -> bool:
    others = (found.external_id for license_id, found in state.licenses.items() if license_id != mine)
    return bool(external_id) and external_id in others


def _found(state: State, act: Act, now: datetime) -> tuple[License, Terms, dict[str, bool]]:
    """The license that is asked for something, the terms that it is under, and what its state and the etag refuse."""
    found = state.licenses.get(act["license_id"])
    if found is None:
        raise RefusedError("LICENSE_NOT_FOUND")
    terms = state.policies[found.policy_id].terms
    stale = bool(act["etag"]) and act["etag"] != f"r{found.revision}"
    status = status_of(found, terms, now)
    if act.kind in USES and status == "expired" and terms.lenient:
        status = "active"
    column = "change" if act.kind in CHANGES else "use" if act.kind in USES else act.kind
    forbidden = act.kind != "delete" and TABLE[(status, column)] == "-"
    return found, terms, {"ETAG_MISMATCH": stale, "STATE_TRANSITION_INVALID": forbidden}


def _changed(state: State, act: Act, event: str, after: License, now: datetime) -> Done:
    after = replace(after, revision=after.revision + 1, updated_at=now)
    about = _about(after, state.policies[after.policy_id].terms, now)
    told = Told(act["license_id"], f"license.{event}", act["reason"] or "", about)
    return Done(replace(state, licenses=put(state.licenses, act["license_id"], after)), (told,))


def _change_status(state: State, act: Act, now: datetime, made: Made) -> Done:
    found, terms, why = _found(state, act, now)
    refuse(**why)
    status = TABLE[(status_of(found, terms, now), act.kind)]
    event = {"suspend": "suspended", "revoke": "revoked", "ban": "banned"}[act.kind]
    return _changed(state, act, event, replace(found, status=status, status_reason=act["reason"] or ""), now)


def _reinstate(state: State, act: Act, now: datetime, made: Made) -> Done:
    found, terms, why = _found(state, act, now)
    end = act["expire_time"]
    has_ended = status_of(found, terms, now) == "expired"
    refuse(**why, FIELD_INVALID=(end is None or end <= now) if has_ended else end is not None)
    return _changed(
        state, act, "reinstated",
        replace(found, status="active", status_reason="", expires_at=end if has_ended else found.expires_at), now,
    )  # fmt: skip


def _renew(state: State, act: Act, now: datetime, made: Made) -> Done:
    found, terms, why = _found(state, act, now)
    refuse(**why, POLICY_INCOMPATIBLE=terms.duration is None or found.expires_at is None)
    assert terms.duration is not None
    assert found.expires_at is not None
    from_now = terms.renewal_basis == "FROM_NOW"
    from_now = from_now or (terms.renewal_basis == "FROM_NOW_IF_EXPIRED" and is_over(found, terms, now))
    start = max(now, found.starts_at or now) if from_now else found.expires_at
    return _changed(state, act, "renewed", replace(found, expires_at=start + terms.duration), now)


def _update(state: State, act: Act, now: datetime, made: Made) -> Done:
    found, terms, why = _found(state, act, now)
    changes: Mapping[str, Any] = act["changes"]
    start, end = changes.get("start_time", found.starts_at), changes.get("expire_time", found.expires_at)
    dated = bool({"start_time", "expire_time"} & set(changes))
    own = changes.get("max_uses", found.own_max_uses)
    refuse(
        **why,
        FIELD_INVALID=dated and start is not None and end is not None and end <= start,
        EXTERNAL_ID_TAKEN=_is_taken(state, changes.get("external_id"), act["license_id"]),
        POLICY_INCOMPATIBLE="max_uses" in changes and own is not None and "MAX_USES" not in terms.overridable,
    )
    after = replace(
        found, starts_at=start, expires_at=end, own_max_uses=own, anchored=found.anchored or "expire_time" in changes,
        external_id=changes.get("external_id", found.external_id),
        display_name=changes.get("display_name", found.display_name),
    )  # fmt: skip
    return _changed(state, act, "updated", after, now)


def _change_tier(state: State, act: Act, now: datetime, made: Made) -> Done:
    found, _, why = _found(state, act, now)
    tier = state.tiers.get(act["tier_id"] or "")
    refuse(
        **why,
        TIER_NOT_FOUND=bool(act["tier_id"]) and tier is None,
        FIELD_INVALID=tier is not None and tier.product_id != found.product_id,
    )
    return _changed(state, act, "tier.updated", replace(found, tier_id=act["tier_id"] or ""), now)


def _change_policy(state: State, act: Act, now: datetime, made: Made) -> Done:
    found, before, why = _found(state, act, now)
    policy = state.policies.get(act["policy_id"])
    foreign = policy is not None and policy.product_id != found.product_id
    refuse(**why, POLICY_NOT_FOUND=policy is None, POLICY_INCOMPATIBLE=foreign)
    assert policy is not None
    terms = policy.terms
    after = replace(found, policy_id=act["policy_id"])
    if terms.transfer_strategy == "RESET_EXPIRY":
        after = replace(after, expires_at=None, anchored=False)
    if not after.anchored and not terms.waits:
        after = counted(after, terms, now)
    if terms.require_check_in and not before.require_check_in:
        after = replace(after, check_in_from=now)
    return _changed(state, act, "policy.updated", after, now)


def counted(found: License, terms: Terms, now: datetime) -> License:
    """With its duration counting from `now`, or from a start that lies ahead."""
    start = max(now, found.starts_at or now)
    return replace(found, anchored=True, expires_at=None if terms.at_first is None else start + terms.at_first)


def _transfer(state: State, act: Act, now: datetime, made: Made) -> Done:
    found, _, why = _found(state, act, now)
    refuse(**why, **nobody(state, act["customer"]))
    after, customer_id, told = holder(state, act["customer"], made)
    done = _changed(after, act, "customer.updated", replace(found, customer_id=customer_id), now)
    return replace(done, told=(*told, *done.told))


def _rotate_key(state: State, act: Act, now: datetime, made: Made) -> Done:
    found, _, why = _found(state, act, now)
    refuse(**why, KEY_TAKEN=bool(act["key"]) and canonical(act["key"]) in state.keys)
    end = now + act["overlap"] if act["overlap"] else now
    keys = {
        name: replace(key, ends_at=end if key.ends_at is None else min(end, key.ends_at))
        if key.license_id == act["license_id"] else key for name, key in state.keys.items()
    }  # fmt: skip
    keys = put(keys, canonical(made.key), Key(act["license_id"]))
    return _changed(replace(state, keys=keys), act, "key.rotated", replace(found, key_hint=made.key[-4:]), now)


def _delete(state: State, act: Act, now: datetime, made: Made) -> Done:
    found, terms, why = _found(state, act, now)
    refuse(**why)
    left = {license_id: other for license_id, other in state.licenses.items() if license_id != act["license_id"]}
    told = Told(act["license_id"], "license.deleted", act["reason"] or "", _about(found, terms, now))
    return Done(replace(state, licenses=left), (told,))


def _check_in(state: State, act: Act, now: datetime, made: Made) -> Done:
    found, terms, why = _found(state, act, now)
    refuse(**why, POLICY_INCOMPATIBLE=not terms.require_check_in)
    return _changed(state, act, "checked_in", replace(found, checked_in_at=now, check_in_from=now), now)


def _change_uses(state: State, act: Act, now: datetime, made: Made) -> Done:
    found, terms, why = _found(state, act, now)
    limit, asked = limit_of(found, terms), act.args.get("uses", 1)
    uses = {"increment_uses": found.uses + asked, "decrement_uses": found.uses - asked}.get(act.kind, 0)
    too_many = act.kind == "increment_uses" and limit is not None and uses > limit
    refuse(**why, INSUFFICIENT_USAGE=uses < 0 or too_many)
    after = replace(found, uses=uses)
    if act.kind == "increment_uses" and not found.anchored and terms.expiration_basis == "FROM_FIRST_USE":
        after = replace(counted(after, terms, now), revision=found.revision + 1, updated_at=now)
    what = {"increment_uses": "incremented", "decrement_uses": "decremented"}.get(act.kind, "reset")
    told = [Told(act["license_id"], f"license.usage.{what}", act["reason"] or "", _about(after, terms, now))]
    if act.kind == "increment_uses" and uses == limit:
        told.append(replace(told[0], type="license.limit_reached"))
    return Done(replace(state, licenses=put(state.licenses, act["license_id"], after)), tuple(told))


def _validate(state: State, act: Act, now: datetime, made: Made) -> Done:
    """What a validation changes, where it changes anything: the verdict is `verdict`'s."""
    license_id, seen = verdict(state, act["key"] or "", act["license_id"] or "", act["asked"], now)
    if not seen.valid:
        return Done(state)
    found = state.licenses[license_id]
    terms, told = state.policies[found.policy_id].terms, ()
    at = made.counted_from or now
    if not found.anchored and terms.expiration_basis == "FROM_FIRST_VALIDATION":
        after = replace(counted(found, terms, at), revision=found.revision + 1, updated_at=at)
        state = replace(state, licenses=put(state.licenses, license_id, after))
        told = (Told(license_id, "license.updated", "first validation", _about(after, terms, at)),)
    if terms.uses_counted_by == "VALIDATION":
        use = Act("increment_uses", {"license_id": license_id, "reason": "validation"})
        done = _change_uses(state, use, at, made)
        return replace(done, told=(*told, *done.told))
    return Done(state, told)


_ACTS: Final[Mapping[str, Callable[[State, Act, datetime, Made], Done]]] = {
    "create_product": create_product, "create_tier": create_tier, "update_tier": update_tier, "delete_tier": delete_tier,
    "create_policy": create_policy, "update_policy": update_policy, "delete_policy": delete_policy,
    "ban_customer": change_ban, "unban_customer": change_ban, "update_customer": update_customer,
    "create": _create, "suspend": _change_status, "revoke": _change_status, "ban": _change_status, "reinstate": _reinstate,
    "renew": _renew, "update": _update, "change_tier": _change_tier, "change_policy": _change_policy, "transfer": _transfer,
    "rotate_key": _rotate_key, "delete": _delete, "check_in": _check_in, "increment_uses": _change_uses,
    "decrement_uses": _change_uses, "reset_uses": _change_uses, "validate": _validate,
}  # fmt: skip
LICENSE_ACTS: Final = ("suspend", "reinstate", "renew", "revoke", "ban", "update", "change_tier", "change_policy", "transfer",
                       "rotate_key", "delete", "check_in", "increment_uses", "decrement_uses", "reset_uses")  # fmt: skip
