"""What an answer to a validation shows of the state that it was made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from lictor.common.v1.common_pb2 import Decision, Freshness
from lictor.license.v1 import validation_service_pb2 as pb

from tests.consistency.history import Value
from tests.consistency.scene import FEW, lease_line, print_line

Code = pb.ValidationCode.Code
Beats = pb.MachineHeartbeat.Status
TELLING: Final = {Code.VALID, Code.IN_GRACE}


@dataclass(frozen=True)
class Question:
    """One validation: by which key, of whom, and what else it names."""

    request: pb.ValidateLicenseRequest
    key: str
    license_id: str
    holder: str
    """The customer that it names, if it names one by his id."""
    subject: str
    """The subject that it names, and `owner`, whose it is or was."""
    owner: str
    shown: str = ""
    """The fingerprint that it shows."""
    machine_of: str = ""
    """The license of the machine that it names, if it names one by its id."""


class TornError(Exception):
    """An answer that contradicts itself."""


Seen = dict[str, dict[str, object] | None]


def told_once(decisions: Sequence[Decision]) -> tuple[Freshness.Source.ValueType, Timestamp]:
    """Where all of these came from, and when that held. TornError where that is not one state."""
    first = decisions[0]
    for other in decisions:
        if (other.freshness, other.evaluated_at) != (first.freshness, first.evaluated_at):
            raise TornError(f"of one batch, {first} and {other}")
    return first.freshness, first.evaluated_at


def merge(seen: Seen, more: Mapping[str, Mapping[str, object] | None]) -> None:
    """Puts what one answer shows to what others of the same state show. TornError where they differ."""
    for line, value in more.items():
        if line not in seen:
            seen[line] = None if value is None else dict(value)
            continue
        known = seen[line]
        if known is None or value is None:
            if known is not value:
                raise TornError(f"{line} is {known} and {value}")
            continue
        for name, one in value.items():
            if known.setdefault(name, one) != one:
                raise TornError(f"{name} of {line} is {known[name]} and {one}")


def shown(question: Question, answer: pb.ValidateLicenseResponse, known: Mapping[str, Value]) -> Seen:
    """What an answer shows of each line. TornError where its code is not the first that these give."""
    if answer.code == Code.NOT_FOUND:
        return {f"key:{question.key}" if question.key else f"license:{question.license_id}": None}
    asked, codes = question.request, list(answer.all_codes)
    line = f"license:{answer.license_id}"
    found: dict[str, object] = {
        "expires": answer.expire_time.seconds,
        "suspended": Code.SUSPENDED in codes,
        "policy": answer.policy_id,
        "tier": answer.tier_id,
    }
    policy: dict[str, object] = {
        "grace": answer.grace_end_time.seconds - answer.expire_time.seconds,
        "trial": answer.is_trial,
    }
    seen: Seen = {line: found, f"policy:{answer.policy_id}": policy, f"tier:{answer.tier_id}": {"slug": answer.tier}}
    if question.key and asked.HasField(
        "license"
    ):  # else who calls has found the license, which is a decision of its own
        seen[f"key:{question.key}"] = {"found": True}
    if not asked.product:
        policy["product"] = Code.PRODUCT_SCOPE_REQUIRED in codes
    if not asked.policy_id:
        policy["policy"] = Code.POLICY_SCOPE_REQUIRED in codes
    elif (Code.POLICY_SCOPE_MISMATCH in codes) != (answer.policy_id != asked.policy_id):
        raise TornError(f"{line} is under {answer.policy_id}, asked for {asked.policy_id}: {codes}")
    if asked.required_tier:
        seen[f"tier:{answer.tier_id}"] = {"slug": answer.tier, "high": Code.TIER_SCOPE_MISMATCH not in codes}
    is_match = Code.USER_SCOPE_MISMATCH not in codes
    if not asked.HasField("user"):
        policy["user"] = Code.USER_SCOPE_REQUIRED in codes
    elif is_match:
        holder = question.holder or question.owner
        found["holder"] = holder
        customer: dict[str, object] = {"banned": Code.BANNED in codes}
        if question.subject:
            customer["subject"] = question.subject
        seen[f"customer:{holder}"] = customer
    if not question.shown:
        policy["print"] = Code.FINGERPRINT_SCOPE_REQUIRED in codes
    if answer.heartbeat_status == Beats.NOT_STARTED:
        policy["beat"] = Code.HEARTBEAT_NOT_STARTED in codes
    policy |= _limit_of_processes(answer, codes)
    seen |= _machines(question, answer, codes, known)
    if answer.valid != (set(codes) <= TELLING) or (codes and answer.code != codes[0]):
        raise TornError(f"{line}: valid is {answer.valid}, and the codes {codes}")
    return {name: value for name, value in seen.items() if name in known}


def _machines(
    question: Question,
    answer: pb.ValidateLicenseResponse,
    codes: Sequence[pb.ValidationCode.Code.ValueType],
    known: Mapping[str, Value],
) -> Seen:
    """What an answer shows of machines. TornError where it says of one that it is there, and that it is not."""
    license_id, seats = answer.license_id, answer.seats
    seen: Seen = {f"seats:{license_id}": _seats(seats)}
    # How it beats that has lost its lease is not to be seen.
    status = answer.heartbeat_status
    beats = {} if status == Beats.DEAD else {"beats": Beats.Name(status)}
    if (Code.HEARTBEAT_DEAD in codes) != (status == Beats.DEAD):
        raise TornError(f"of {license_id} the machine is {Beats.Name(status)}, and the codes {codes}")
    if question.shown:
        # Until somebody was told of its activation, nobody can say which machine it is.
        named = {"machine": answer.machine_id} if f"machine:{answer.machine_id}" in known else {}
        found: dict[str, object] = {"found": True, **beats, **named}
        seen[print_line(license_id, question.shown)] = found if answer.machine_id else None
        missing = Code.FINGERPRINT_NOT_FOUND in codes
    elif question.machine_of:
        if question.machine_of == license_id:
            machine_id = question.request.machine_id
            seen[f"machine:{machine_id}"] = {"license": license_id, **beats} if answer.machine_id else None
        elif answer.machine_id:
            raise TornError(f"{answer.machine_id} of {question.machine_of} is shown as one of {license_id}")
        missing = Code.MACHINE_SCOPE_MISMATCH in codes
    else:
        return seen
    if missing == bool(answer.machine_id):
        raise TornError(f"of {license_id} the machine is {answer.machine_id!r}, and the codes {codes}")
    if (Code.NO_MACHINES in codes) != (seats.machines == 0):
        raise TornError(f"{license_id} has {seats.machines} machines, and the codes {codes}")
    return seen


def _seats(seats: pb.SeatCounts) -> dict[str, object]:
    return {"machines": seats.machines, "cores": seats.cores, "processes": seats.processes}


def _limit_of_processes(
    answer: pb.ValidateLicenseResponse, codes: Sequence[pb.ValidationCode.Code.ValueType]
) -> dict[str, object]:
    """What an answer shows of how many processes its policy allows, of a license or of each machine. TornError where the verdict
    is not that of the number of processes that it tells."""
    running, machines = answer.seats.processes, max(1, answer.seats.machines)
    told = [(one.taken, one.limit) for one in answer.exceeded if one.code == Code.TOO_MANY_PROCESSES]
    if (Code.TOO_MANY_PROCESSES in codes) != bool(told):
        raise TornError(f"of processes {told} is exceeded, and the codes {codes}")
    if not told:
        return {"few": False} if running > FEW * machines else {}
    ((taken, limit),) = told
    if taken != running or limit >= taken or limit not in {FEW, FEW * machines}:
        raise TornError(f"{taken} of {limit} processes on {machines} machines, of {running}")
    return {"few": True} if machines == 1 else {"few": True, "each": limit != FEW}


def by_the_clock(answer: pb.ValidateLicenseResponse, known: Mapping[str, Value]) -> Seen:
    """What an answer shows of whether a lease is over: that goes by the time at which it was made, whatever it was made of."""
    line = lease_line(answer.machine_id)
    return {line: {"over": answer.heartbeat_status == Beats.DEAD}} if answer.machine_id and line in known else {}
