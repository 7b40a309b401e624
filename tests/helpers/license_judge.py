"""Whether an answer of the service is what the model says, in a given state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import grpc.aio
from lictor.common.v1.common_pb2 import Freshness
from lictor.license.v1 import customer_service_pb2 as customers
from lictor.license.v1 import license_service_pb2 as licenses
from lictor.license.v1 import validation_service_pb2 as validation

from tests.helpers import license_model as model
from tests.helpers.builders import send
from tests.helpers.echo import refusal
from tests.helpers.lease import SHORT_LEASE_MS
from tests.helpers.license_acts import Act, Done, Made, apply
from tests.helpers.license_wire import MAX_MACHINES, assert_equal, assert_license, instant, request_of, stamp
from tests.helpers.suite import Suite

_RESOURCES: Final = ("license", "policy", "tier", "customer", "product")
_RECHECK: Final = timedelta(minutes=5)
_AHEAD: Final = timedelta(milliseconds=100)
"""By how much memory may be ahead of Postgres's clock, at most: what a poll may take."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended: with an answer, or with the reason of a refusal. It ran from `before` to `after`."""

    answer: Any
    reason: str
    before: datetime
    after: datetime


async def ask(suite: Suite, act: Act, key: str) -> Outcome:
    """Asks the suite for it."""
    request, before = request_of(act), datetime.now(UTC)
    try:
        answer, reason = await send(suite, request, key), ""
    except grpc.aio.AioRpcError as error:
        answer, reason = None, refusal(error).reason
    return Outcome(answer, reason, before, datetime.now(UTC))


def judged(state: model.State, act: Act, outcome: Outcome) -> Done:
    """What the act makes of `state`; an AssertionError where the model would have answered something else."""
    if act.kind == "validate":
        return _validated(state, act, outcome)
    now, made = outcome.after, Made()
    resource = _resource(outcome.answer)
    if resource is not None:
        changed = instant(resource.update_time)
        if changed >= outcome.before:  # otherwise the answer shows an earlier change: this one was none
            assert changed <= outcome.after, "a change from the future"
            now = changed
        made = Made(_id(resource), getattr(resource, "customer_id", ""), getattr(outcome.answer, "key", ""))
    done = apply(state, act, now, made)
    if outcome.reason or done.refusals:
        assert outcome.reason in done.refusals, f"{act}: {outcome.reason or 'OK'}, and not {set(done.refusals) or 'OK'}"
    elif resource is not None:
        _compare(done.state, act, outcome.answer, now)
    return done


def _compare(state: model.State, act: Act, answer: Any, now: datetime) -> None:
    resource = _resource(answer)
    if isinstance(resource, licenses.License):
        assert_license(resource, state, now)
        if act.kind == "rotate_key":
            assert instant(answer.old_keys_end_time) == now + (act["overlap"] or timedelta(0))
        return
    kept = {**state.policies, **state.tiers, **state.customers}.get(_id(resource))
    revision = 1 if kept is None else kept.revision
    assert (resource.revision, resource.etag) == (revision, f"r{revision}")
    if isinstance(resource, customers.Customer):
        customer = state.customers[resource.customer_id]
        shown = (resource.email, resource.subject_ref, resource.banned)
        assert shown == (customer.email, customer.subject_ref, customer.banned)


def codes_in(answer: validation.ValidateLicenseResponse) -> Sequence[str]:
    return [validation.ValidationCode.Code.Name(code) for code in answer.all_codes]


def _validated(state: model.State, act: Act, outcome: Outcome) -> Done:
    """The verdict, and what it changes."""
    assert not outcome.reason, outcome.reason
    answer: validation.ValidateLicenseResponse = outcome.answer
    now, key = _decided_at(act, outcome), act["key"] or ""
    license_id, seen = model.verdict(state, key, act["license_id"] or "", act["asked"], now)
    done = apply(state, act, now, Made(counted_from=_counted_from(state, license_id, outcome, now)))
    assert (answer.valid, tuple(codes_in(answer)), answer.code) == (seen.valid, seen.codes, answer.all_codes[0])
    assert answer.license_id == license_id
    assert answer.detail
    if not license_id:
        assert_equal(
            answer,
            validation.ValidateLicenseResponse(
                decision=answer.decision, code=answer.code, all_codes=answer.all_codes, detail=answer.detail
            ),
        )
        return done
    # What the validation itself has changed is told, but the code is the one from before.
    found = done.state.licenses[license_id]
    policy = done.state.policies[found.policy_id]
    leased = answer.decision.freshness == Freshness.LEASED
    if leased:
        began = state.licenses[license_id]
        waits = not began.anchored and policy.terms.expiration_basis == "FROM_FIRST_VALIDATION"
        assert not waits, "only the record knows whether its duration has begun"
        assert model.limit_of(began, policy.terms) is None, "only the record counts"
    before_use = replace(state, licenses={license_id: replace(found, uses=state.licenses[license_id].uses)})
    until = model.verdict(before_use, key, license_id, act["asked"], now)[1].until
    limit = model.limit_of(found, policy.terms)
    tier = state.tiers.get(found.tier_id)
    expected = validation.ValidateLicenseResponse(
        decision=answer.decision, valid=seen.valid, code=answer.code, all_codes=answer.all_codes, detail=answer.detail,
        license_id=license_id, product_id=found.product_id, policy_id=found.policy_id, is_trial=policy.terms.is_trial,
        tier_id=found.tier_id, tier=tier.slug if tier else "", missing=act["asked"].entitlements,
        uses_left=None if limit is None else max(0, limit - found.uses), expire_time=stamp(found.expires_at),
        grace_end_time=stamp(model.end_of(found, policy.terms)) if policy.terms.grace_period else None,
        check_in_due_time=stamp(model.check_in_due(found, policy)),
        seats=validation.SeatCounts(max_machines=MAX_MACHINES),
    )  # fmt: skip
    assert_equal(answer, expected)
    assert (answer.decision.valid_until if answer.decision.HasField("valid_until") else None) == stamp(until)
    recheck = answer.decision.recheck_after.ToTimedelta()
    left = _RECHECK if until is None else min(_RECHECK, until - now)
    assert left - (outcome.after - outcome.before + _AHEAD if leased else timedelta(0)) <= recheck <= left
    return done


def _decided_at(act: Act, outcome: Outcome) -> datetime:
    """The time that the verdict is of. What memory answers was so at a time within a lease, and is decided as of the call: no
    moment of a license comes meanwhile."""
    decision = outcome.answer.decision
    at = instant(decision.evaluated_at)
    if decision.freshness == Freshness.LEASED:
        assert act["how"] in {"token", "leased"}, "the record was asked for"
        assert outcome.before - timedelta(milliseconds=SHORT_LEASE_MS) <= at <= outcome.after
        return outcome.before
    assert decision.freshness == Freshness.RECORD
    assert outcome.before <= at <= outcome.after
    return at


def _counted_from(state: model.State, license_id: str, outcome: Outcome, now: datetime) -> datetime | None:
    """When a license's duration began to count with this validation: the answer tells it by the expiry."""
    found = state.licenses.get(license_id)
    if found is None or found.anchored or not outcome.answer.HasField("expire_time"):
        return None
    first = state.policies[found.policy_id].terms.at_first
    assert first is not None
    began = instant(outcome.answer.expire_time) - first
    assert now <= began <= outcome.after
    return began


def _resource(answer: Any) -> Any:
    return next((getattr(answer, name) for name in _RESOURCES if hasattr(answer, name)), None)


def _id(resource: Any) -> str:
    return getattr(resource, f"{type(resource).__name__.lower()}_id")
