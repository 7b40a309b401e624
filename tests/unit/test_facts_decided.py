"""A validation answers the same from memory, from a load, and from what a store beside the record gives back; and what that is
says the design, written out a second time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from services.license.asked import Asked
from services.license.decision import decide
from services.license.facts import is_answered_by_record
from shared.facts import codec
from shared.facts.customers import CustomerValue
from shared.facts.finding import fingerprint_key
from shared.facts.license import (
    OF_THE_POLICY,
    KeyValue,
    LicenseValue,
    Loaded,
    PolicyValue,
    ProductValue,
    TiersValue,
    Wanted,
    license_key,
    look,
    tenant_prefix,
)
from shared.facts.machines import (
    ComponentsValue,
    FingerprintValue,
    Limits,
    MachineAsked,
    MachineTerms,
    MachineValue,
    SeatsValue,
)
from shared.freshness.memory import Fact, Memory
from shared.freshness.reader import Load, Source, View
from shared.freshness.snapshot import Snapshot, Stamp
from shared.tenancy import Mode, Tenant
from tests.helpers.decisions import NOW, License, asked, facts, failing, is_valid, moments
from tests.helpers.fleets import (
    IDS,
    PRINTS,
    Fellow,
    fleets,
    limits,
    machine_moments,
    machine_terms,
    machines_asked,
    seats_values,
)

TENANT = Tenant("acc_1", Mode.TEST)
PREFIX = tenant_prefix(TENANT)
HASH, OTHER_HASH = b"\x01" * 32, b"\x02" * 32
BY_KEY, BY_ID = Wanted((OTHER_HASH, HASH), None), Wanted((), "lic_1")
OF_MACHINES = {"seats", "machine", "fingerprint", "component"}
STAMP = Stamp(7, UUID(int=1), Snapshot(5, 9, frozenset({5, 7})))


def machines_of(license_: License, read_at: datetime) -> dict[str, object]:
    """The same of its machines, and of what there is not."""
    values: dict[str, object] = {f"seats:{PREFIX}lic_1": license_.seats}
    values |= {f"machine:{PREFIX}{machine_id}": None for machine_id in (*IDS, "mach_9")}
    values |= {f"component:{PREFIX}{machine_id}": None for machine_id in IDS}
    for name in PRINTS:
        holders = sorted(
            one.machine_id
            for one in license_.fleet
            if name in one.prints and one.license_id == "lic_1" and not one.gone
        )
        key = fingerprint_key(PREFIX, "lic_1", name.encode())
        values[key] = FingerprintValue(holders) if holders else None
    for one in license_.fleet:
        value = MachineValue(
            one.license_id, one.user[0] if one.user else None, one.gone, one.status, one.began, None, one.offline,
            None if one.lease_end is None else 1, one.beat, one.lease_end, None,
        )  # fmt: skip
        values[f"machine:{PREFIX}{one.machine_id}"] = value.read_at(read_at, license_.machines)
        if one.parts:
            parts = [(name, name.encode()) for name in sorted(one.parts)]
            values[f"component:{PREFIX}{one.machine_id}"] = ComponentsValue(parts)
        if one.user is not None:
            values[f"customer:{PREFIX}{one.user[0]}"] = CustomerValue(one.user[1], one.user[2], False)
    return values


def facts_of(license_: License, read_at: datetime = NOW) -> dict[str, Fact]:
    """What a load reads of a license and all around it."""
    tiers = dict(license_.tiers)
    if license_.tier is not None and license_.tier_position is not None:
        tiers[license_.tier] = license_.tier_position
    rest: dict[str, object] = {
        "is_trial": False, "uses_counted_by": "EXPLICIT", "authentication": "NONE", "stale_ok_for": timedelta(hours=1),
    }  # fmt: skip
    terms: dict[str, Any] = {name: rest[name] if name in rest else getattr(license_, name) for name in OF_THE_POLICY}
    values: dict[str, object] = {
        license_key(PREFIX, HASH): KeyValue("lic_1", license_.key_expires_at),
        f"license:{PREFIX}lic_1": LicenseValue(
            "lic_1", license_.product_id, license_.policy_id, license_.customer_id,
            None if license_.tier is None else f"tier_{license_.tier}", license_.status, license_.starts_at,
            license_.expires_at, license_.anchored, license_.check_in_from, license_.max_uses_override, license_.overrides,
        ),
        f"policy:{PREFIX}{license_.policy_id}": PolicyValue(**terms, first_duration=None),
        f"product:{PREFIX}{license_.product_id}": ProductValue(license_.product_code),
        f"tier:{PREFIX}{license_.product_id}": TiersValue(tuple((f"tier_{slug}", slug, n) for slug, n in tiers.items())),
    }  # fmt: skip
    values |= machines_of(license_, read_at)
    if license_.customer_id is not None:
        values[f"customer:{PREFIX}{license_.customer_id}"] = CustomerValue(
            license_.customer_subject_ref, license_.customer_email_hash, license_.customer_banned
        )
    found = {key: Fact(key, value, 100) for key, value in values.items()}
    return found | {license_key(PREFIX, OTHER_HASH): Fact(license_key(PREFIX, OTHER_HASH), None, 0)}


def from_memory(known: Mapping[str, Fact], wanted: Wanted, now: datetime) -> Loaded | None:
    memory = Memory(1 << 20)
    for fact in known.values():
        memory.put(fact)
    view = View(memory.get, NOW, now, Source.LEASED, (), {})
    first = look(view, TENANT, wanted)
    again = look(view, TENANT, wanted)
    assert first == again, "what was joined once is used again"
    return first


def from_beside(known: Mapping[str, Fact], wanted: Wanted, now: datetime) -> Loaded | None:
    decoded = codec.decode(codec.encode(STAMP, known.values()))
    assert decoded is not None
    assert decoded[0] == STAMP
    return from_memory({fact.key: fact for fact in decoded[1]}, wanted, now)


@settings(deadline=None, max_examples=300)
@given(facts, asked, moments | st.just(NOW), st.booleans())
def test_memory_a_load_and_the_design_agree(license_: License, query: Asked, now: datetime, by_key: bool) -> None:
    agree(license_, query, now, by_key=by_key)


@settings(deadline=None, max_examples=500)
@given(
    facts,
    asked,
    moments | st.just(NOW),
    st.tuples(machine_terms, limits, fleets, seats_values),
    st.none() | machines_asked,
)
def test_they_agree_about_machines(
    license_: License,
    query: Asked,
    now: datetime,
    has: tuple[MachineTerms, Limits, tuple[Fellow, ...], SeatsValue | None],
    machine: MachineAsked | None,
) -> None:
    terms, overrides, fleet, seats = has
    license_ = replace(license_, machines=terms, overrides=overrides, fleet=fleet, seats=seats)
    agree(license_, replace(query, machine=machine), now, by_key=False)


def agree(license_: License, query: Asked, now: datetime, *, by_key: bool) -> None:
    """What was read before a deadline does not say that it was missed: memory does not answer then."""
    if license_.customer_id is None:
        license_ = replace(license_, customer_banned=False)
    wanted = replace(BY_KEY if by_key else BY_ID, machine=query.machine)
    known = facts_of(license_, now)
    loaded = look(Load(STAMP, now, known, {"lic_1": license_.uses}).view(), TENANT, wanted)
    assert loaded is not None
    ended = by_key and license_.key_expires_at is not None and license_.key_expires_at <= now
    verdict = decide(loaded.facts, query, now)
    names = [code.name for code in verdict.all_codes]
    assert verdict.code is verdict.all_codes[0]
    assert names == (["NOT_FOUND"] if ended else failing(license_, query, now) or ["VALID"])
    if loaded.facts is not None and is_answered_by_record(loaded.facts):
        return
    assert verdict.valid == (not ended and is_valid(license_, query, now))
    passed = any(NOW < end <= now for end in machine_moments(license_, query))
    known = facts_of(license_)
    for remembered in (from_memory(known, wanted, now), from_beside(known, wanted, now)):
        if passed:
            assert remembered is None
            continue
        assert remembered is not None
        assert remembered.source is Source.LEASED
        assert (remembered.at, remembered.now) == (NOW, now)
        assert decide(remembered.facts, query, now) == verdict
    assert from_memory(facts_of(license_, now), wanted, now) is not None, "what was read past a deadline stands"


@settings(deadline=None)
@given(facts, st.data())
def test_where_one_fact_is_not_known_memory_does_not_answer(license_: License, data: st.DataObject) -> None:
    """None of them is left out of the answer, and none is taken for absent."""
    assume(license_.key_expires_at is None)
    known = {key: fact for key, fact in facts_of(license_).items() if key.partition(":")[0] not in OF_MACHINES}
    lacking = data.draw(st.sampled_from(sorted(known)))
    del known[lacking]
    assert from_memory(known, BY_KEY, NOW) is None
    if lacking not in (license_key(PREFIX, HASH), license_key(PREFIX, OTHER_HASH)):
        assert from_memory(known, BY_ID, NOW) is None
