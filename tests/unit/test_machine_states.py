"""Every action on a machine in every state, and what time does to one, to the microsecond."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.machine.fates import RECHECK, fate_of
from services.machine.model import (
    TRANSITIONS,
    Action,
    DeactivationReason,
    IdentityKind,
    Machine,
    State,
    deactivated,
    refuse_leased,
    refuse_offline,
    refuse_unless_allowed,
    reset,
    updated,
)
from services.machine.terms import Terms
from shared.errors import DomainError, Reason
from shared.rules.fingerprints import MatchingRule
from shared.rules.heartbeats import (
    DRIFT,
    HeartbeatBasis,
    HeartbeatCull,
    HeartbeatResurrection,
    HeartbeatStatus,
)
from shared.rules.machine_terms import (
    ComponentUniqueness,
    MachineLeasing,
    MachineUniqueness,
    ProcessLeasing,
    SeatAcquire,
)
from shared.rules.seats import OverageStrategy

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STEP, MINUTE = timedelta(microseconds=1), timedelta(minutes=1)
LIVES = MINUTE + DRIFT

LIFE = """
                ping   revive  die   reset_heartbeat  update       rebind       transfer     deactivate   cull         replace      check_out    check_in     start_process
    NOT_STARTED ALIVE  -       DEAD  NOT_STARTED      NOT_STARTED  NOT_STARTED  DEACTIVATED  DEACTIVATED  -            -            NOT_STARTED  NOT_STARTED  NOT_STARTED
    ALIVE       ALIVE  -       DEAD  NOT_STARTED      ALIVE        ALIVE        DEACTIVATED  DEACTIVATED  -            -            ALIVE        ALIVE        ALIVE
    DEAD        -      ALIVE   -     NOT_STARTED      DEAD         DEAD         DEACTIVATED  DEACTIVATED  DEACTIVATED  DEACTIVATED  -            -            -
    DEACTIVATED -      -       -     -                -            -            -            -            -            -            -            -            -
"""  # noqa: E501


def life() -> dict[tuple[State, Action], State | None]:
    head, *rows = [line.split() for line in LIFE.strip().splitlines()]
    return {
        (State(row[0]), Action(action)): None if cell == "-" else State(cell)
        for row in rows
        for action, cell in zip(head, row[1:], strict=True)
    }


def terms(**more: Any) -> Terms:
    limits: dict[str, Any] = {
        f"max_{name}{end}": None
        for name in ("machines", "users", "cores", "memory_bytes", "disk_bytes", "processes")
        for end in ("", "_override")
    }
    given: dict[str, Any] = {
        "license_id": "lic_1", "product_id": "prod_1", "product_slug": "p", "policy_id": "pol_1", "customer_id": None,
        "customer_banned": False, "status": "active", "starts_at": None, "expires_at": None, "expiry_anchored_at": None,
        "first_duration": None, "expiration_basis": "FROM_CREATION", "expiration_strategy": "RESTRICT_ACCESS",
        "grace_period": timedelta(0), "offline_max_ttl": timedelta(0), "offline_max_ttl_override": None, "overridable": (),
        "strict": True, "overage_strategy": OverageStrategy.NO_OVERAGE, "floating": False,
        "machine_uniqueness": MachineUniqueness.UNIQUE_PER_LICENSE, "machine_matching": MatchingRule.MATCH_ANY,
        "component_uniqueness": ComponentUniqueness.UNIQUE_PER_MACHINE, "component_matching": MatchingRule.MATCH_ANY,
        "machine_leasing": MachineLeasing.PER_LICENSE, "process_leasing": ProcessLeasing.PER_MACHINE,
        "seat_acquire": SeatAcquire.REJECT,
        "require_heartbeat": True, "heartbeat_interval": MINUTE, "heartbeat_basis": HeartbeatBasis.FROM_FIRST_PING,
        "heartbeat_cull": HeartbeatCull.DEACTIVATE_DEAD, "heartbeat_resurrection": HeartbeatResurrection.REVIVE_1_MINUTE,
        "allow_machine_transfer": False, "max_transfers": None, "transfer_period": timedelta(days=30),
        "offline_allowed": False, "protected": False, "authentication": "NONE",
    }  # fmt: skip
    return Terms(**{**limits, **given, **more})


def machine(state: State = State.ALIVE, **more: Any) -> Machine:
    """In a state, as it is at NOW."""
    given: dict[str, Any] = {
        "heartbeat_status": HeartbeatStatus.ALIVE, "heartbeat_from": NOW, "died_at": None, "deactivated_at": None,
        "deactivation_reason": None,
    }  # fmt: skip
    match state:
        case State.NOT_STARTED:
            given |= {"heartbeat_status": HeartbeatStatus.NOT_STARTED, "heartbeat_from": None}
        case State.DEAD:
            given |= {"heartbeat_status": HeartbeatStatus.DEAD, "died_at": NOW}
        case State.DEACTIVATED:
            given |= {"deactivated_at": NOW, "deactivation_reason": DeactivationReason.ADMIN}
        case State.ALIVE:
            pass
    return Machine(
        machine_id="mach_1", external_id=None, license_id="lic_1", product_id="prod_1", policy_id="pol_1", user_id=None,
        identity_kind=IdentityKind.FINGERPRINT, identity_hash=b"1", uniqueness_scope="lic_1", generation=1, display_name="",
        hostname="", platform="", ip="", cores=None, memory_bytes=None, disk_bytes=None, offline_until=None, lease_epoch=None,
        activated_at=NOW, labels={}, metadata={}, revision=1, updated_at=NOW, **{**given, **more},
    )  # fmt: skip


def test_the_table_has_every_pair_and_no_other() -> None:
    expected = life()
    assert expected.keys() == {(state, action) for state in State for action in Action}
    assert {pair: target for pair, target in expected.items() if target is not None} == dict(TRANSITIONS)


@pytest.mark.parametrize(("state", "action"), life())
def test_each_action_in_each_state(state: State, action: Action) -> None:
    one, target = machine(state), life()[state, action]
    assert one.state_at(NOW, terms()) is state
    if target is not None:
        assert refuse_unless_allowed(one, action, NOW, terms()) is target
        return
    with pytest.raises(DomainError) as caught:
        refuse_unless_allowed(one, action, NOW, terms())
    assert caught.value.reason is Reason.STATE_TRANSITION_INVALID
    assert caught.value.metadata == {"id": "mach_1", "from": state.value, "action": action.value}


@pytest.mark.parametrize("state", State)
def test_what_the_actions_make_is_in_the_state_that_the_table_says(state: State) -> None:
    one, under = machine(state), terms()
    acts = {
        Action.RESET_HEARTBEAT: lambda: reset(one, NOW, under),
        Action.UPDATE: lambda: updated(one, {"hostname": "h"}, NOW, under),
        Action.DEACTIVATE: lambda: deactivated(one, Action.DEACTIVATE, DeactivationReason.SELF, NOW, under),
        Action.CULL: lambda: deactivated(one, Action.CULL, DeactivationReason.CULLED, NOW, under),
    }
    for action, act in acts.items():
        target = life()[state, action]
        if target is None:
            with pytest.raises(DomainError):
                act()
        else:
            made = act()
            assert (made.state_at(NOW, under), made.revision) == (target, 2)


@pytest.mark.parametrize(
    ("late", "told"), [(-STEP, []), (timedelta(0), ["machine.heartbeat.dead"]), (STEP, ["machine.heartbeat.dead"])]
)
def test_death(late: timedelta, told: list[str]) -> None:
    fate = fate_of(machine(), terms(), None, NOW + LIVES + late)
    assert [step.event for step in fate.steps] == told
    if told:
        (step,) = fate.steps
        assert (step.machine.died_at, step.at) == (NOW + LIVES, NOW + LIVES)
        assert step.machine.heartbeat_status is HeartbeatStatus.DEAD
        assert fate.look_at == NOW + LIVES + MINUTE, "when its window is over"
    else:
        assert fate.look_at == NOW + LIVES


@pytest.mark.parametrize("late", [-STEP, timedelta(0)])
def test_the_end_of_the_window(late: timedelta) -> None:
    fate = fate_of(machine(State.DEAD), terms(), None, NOW + MINUTE + late)
    if late < timedelta(0):
        assert (fate.steps, fate.look_at) == ([], NOW + MINUTE)
        return
    (step,) = fate.steps
    assert (step.event, step.machine.deactivation_reason) == ("machine.deactivated", DeactivationReason.CULLED)
    assert (step.at, fate.look_at) == (NOW + MINUTE, None)


@pytest.mark.parametrize(
    "more",
    [
        {"heartbeat_cull": HeartbeatCull.KEEP_DEAD},
        {"heartbeat_resurrection": HeartbeatResurrection.ALWAYS_REVIVE},
        {"require_heartbeat": False},
    ],
    ids=str,
)
def test_the_dead_who_are_kept(more: dict[str, Any]) -> None:
    later = NOW + timedelta(days=100)
    fate = fate_of(machine(State.DEAD), terms(**more), None, later)
    assert not fate.steps
    assert fate.look_at is not None
    assert later < fate.look_at <= later + RECHECK


@pytest.mark.parametrize("late", [-STEP, timedelta(0)])
@pytest.mark.parametrize("state", [State.NOT_STARTED, State.ALIVE, State.DEAD])
def test_the_end_of_a_lease(late: timedelta, state: State) -> None:
    ends = NOW + timedelta(seconds=10)
    fate = fate_of(replace(machine(state), lease_epoch=1, lease_expires_at=ends), terms(), None, ends + late)
    if late < timedelta(0):
        assert (fate.steps, fate.look_at) == ([] if state is State.DEAD else (), ends)
    else:
        assert [step.machine.deactivation_reason for step in fate.steps] == [DeactivationReason.LEASE_EXPIRED]


@pytest.mark.parametrize("state", [State.NOT_STARTED, State.ALIVE, State.DEAD])
@pytest.mark.parametrize(
    ("under", "ends"),
    [
        (None, True),
        ({"status": "revoked"}, True),
        ({"status": "banned"}, True),
        ({"expires_at": NOW, "expiration_strategy": "REVOKE"}, True),
        ({"expires_at": NOW + STEP, "expiration_strategy": "REVOKE"}, False),
        ({"expires_at": NOW}, False),
        ({"status": "suspended"}, False),
        ({"customer_banned": True}, False),
    ],
    ids=str,
)
def test_the_end_of_a_license(state: State, under: dict[str, Any] | None, ends: bool) -> None:
    fate = fate_of(machine(state), None if under is None else terms(**under), None, NOW)
    reasons = [step.machine.deactivation_reason for step in fate.steps]
    assert reasons == ([DeactivationReason.LICENSE_ENDED] if ends else [])


@pytest.mark.parametrize("late", [-STEP, timedelta(0)])
@pytest.mark.parametrize("state", [State.NOT_STARTED, State.ALIVE])
def test_the_clock_stands_until_a_file_ends(state: State, late: timedelta) -> None:
    ends = NOW + timedelta(days=14)
    away = replace(machine(state), offline_until=ends)
    assert not fate_of(away, terms(), None, ends).steps
    told = [step.event for step in fate_of(away, terms(), None, ends + LIVES + late).steps]
    assert told == (["machine.heartbeat.dead"] if state is State.ALIVE and late == timedelta(0) else [])


def test_a_file_and_a_lease_go_together_at_no_machine() -> None:
    refuse_leased(machine())
    with pytest.raises(DomainError, match="is leased") as caught:
        refuse_leased(replace(machine(), lease_epoch=1, lease_expires_at=NOW + MINUTE))
    assert caught.value.reason is Reason.OFFLINE_NOT_ALLOWED
    refuse_offline(replace(machine(), offline_until=NOW), NOW)
    with pytest.raises(DomainError, match="cannot lease") as caught:
        refuse_offline(replace(machine(), offline_until=NOW + STEP), NOW)
    assert caught.value.reason is Reason.STATE_TRANSITION_INVALID


def test_nothing_more_becomes_of_what_has_ended() -> None:
    fate = fate_of(machine(State.DEACTIVATED), None, None, NOW)
    assert (fate.steps, fate.look_at) == ((), None)
