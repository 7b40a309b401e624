"""From verdicts to protobuf."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from lictor.common.v1.common_pb2 import Decision, Freshness
from lictor.license.v1 import validation_service_pb2 as pb

from services.license.codes import Code
from services.license.deciding import Decided
from services.license.decision import Verdict
from services.license.explaining import Explained
from services.license.facts import next_check_in, uses_limit
from services.license.machines import LIMITS, heartbeat_status, limit_of, taken
from shared.facts.license import LicenseFacts
from shared.facts.machines import SeatsValue
from shared.freshness.reader import Source
from shared.ids import Prefix, new_id
from shared.rpc import render
from shared.rules.expiry import grace_end
from shared.rules.heartbeats import HeartbeatStatus

_FRESHNESS: Final = {source: Freshness.Source.Value(source.name) for source in Source}
_HEARTBEATS: Final = {status: pb.MachineHeartbeat.Status.Value(status.value) for status in HeartbeatStatus}
_MOST: Final = 2**63 - 1
"""More than what any field has room for is as good as this."""
_WIRE: Final = {code: pb.ValidationCode.Code.Value(code.name) for code in Code}


def answer(decided: Decided) -> pb.ValidateLicenseResponse:
    """The answer to a validation, without the license itself."""
    verdict, at, facts = decided.verdict, decided.loaded.at, decided.loaded.facts
    response = pb.ValidateLicenseResponse(
        decision=Decision(
            decision_id=new_id(Prefix.DECISION),
            evaluated_at=render.timestamp(at),
            freshness=_FRESHNESS[decided.loaded.source],
            valid_until=render.timestamp(verdict.valid_until),
            recheck_after=render.duration(verdict.recheck_after),
        ),
        valid=verdict.valid,
        code=_WIRE[verdict.code],
        all_codes=[_WIRE[code] for code in verdict.all_codes],
        detail=verdict.detail,
        missing=verdict.missing,
    )
    if facts is not None:
        if decided.loaded.source is Source.GRACE:
            _degrade(response.decision, decided, facts.stale_ok_for)
        response.license_id = facts.license_id
        response.product_id = facts.product_id
        response.policy_id = facts.policy_id
        response.is_trial = facts.is_trial
        response.tier_id = facts.tier_id or ""
        response.tier = facts.tier or ""
        limit = uses_limit(facts)
        if limit is not None:
            response.uses_left = max(0, limit - decided.uses)
        for field, moment in (
            (response.expire_time, facts.expires_at),
            (response.grace_end_time, grace_end(facts.expires_at, facts.grace_period)),
            (response.check_in_due_time, next_check_in(facts)),
        ):
            if moment is not None:
                field.CopyFrom(render.timestamp_of(moment))
        if facts.seats is not None:
            _add_seats(response, verdict, facts, facts.seats)
    if verdict.machine is not None:
        response.machine_id = verdict.machine.machine_id
        response.heartbeat_status = _HEARTBEATS[heartbeat_status(verdict.machine, decided.loaded.now)]
    return response


def _add_seats(response: pb.ValidateLicenseResponse, verdict: Verdict, facts: LicenseFacts, seats: SeatsValue) -> None:
    counts = response.seats
    counts.machines, counts.users, counts.processes = seats.machines, seats.users, seats.processes
    counts.cores, counts.memory_bytes = seats.cores, min(seats.memory_bytes, _MOST)
    counts.disk_bytes = min(seats.disk_bytes, _MOST)
    limit = limit_of(facts, "machines")
    if limit is not None:
        counts.max_machines = limit
    for one in (taken(facts, code) for code in verdict.all_codes if code in LIMITS):
        limit, most = min(one.limit or 0, _MOST), None if one.most is None else min(one.most, _MOST)
        response.exceeded.add(code=_WIRE[one.code], taken=min(one.taken, _MOST), limit=limit, most=most)


def _degrade(decision: Decision, decided: Decided, stale_ok_for: timedelta) -> None:
    """Nobody shall keep the answer for longer than it could be given."""
    until = decided.loaded.at + stale_ok_for
    decision.degraded = True
    decision.stale_ok_until.FromDatetime(until)
    left = max(timedelta(0), until - decided.loaded.now)
    if left < decision.recheck_after.ToTimedelta():
        decision.recheck_after.FromTimedelta(left)


def explained(found: Explained) -> pb.ExplainedCheck:
    """One check of an explanation."""
    return pb.ExplainedCheck(
        name=found.name,
        code=_WIRE[found.code],
        outcome=pb.ExplainedCheck.Outcome.Value(found.outcome.value),
        inputs=found.inputs,
        hint=found.hint,
    )
