"""The registry of events: what each carries, and a check that lets nothing else through."""

from __future__ import annotations

import dataclasses
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest

from services.license.account_model import Account, AccountStatus, ApiKey
from services.license.catalog_model import Policy, Product, Tier
from services.license.customer_model import Customer
from services.license.customer_session_model import CustomerSession, EndedSessions
from services.license.events import event_data
from services.license.model import License, Status
from services.license.signing_key_model import SigningKey
from services.license.terms import TEMPLATES, WORDS, Terms
from services.license.workload_model import WorkloadBinding
from shared.events import payloads
from shared.events.payloads import PAYLOADS, Payload
from shared.events.registry import ALIASES, ENVELOPE, EVENTS, faults_of, resolve
from shared.events.schema import Kind

NOW = datetime(2026, 2, 28, 12, tzinfo=UTC)
MODELS: list[tuple[Payload, Any]] = [
    (payloads.ACCOUNT, Account),
    (payloads.API_KEY, ApiKey),
    (payloads.WORKLOAD_BINDING, WorkloadBinding),
    (payloads.PRODUCT, Product),
    (payloads.TIER, Tier),
    (payloads.POLICY, Policy),
    (payloads.CUSTOMER, Customer),
    (payloads.CUSTOMER_SESSION, CustomerSession),
    (payloads.ENDED_SESSIONS, EndedSessions),
    (payloads.SIGNING_KEY, SigningKey),
    (payloads.LICENSE, License),
]
OF_MACHINES = (
    payloads.MACHINE,
    payloads.REFUSED_ACTIVATION,
    payloads.QUEUED_SEAT,
    payloads.PROCESS,
    payloads.REFUSED_PROCESS,
)
"""Told by the machine service, whose own tests hold them against what it tells."""
LEFT_OUT = {"hint", "key_hint", "terms", "check_in_since", "last_validated_at", "first_activated_at"}
ACCOUNT = Account("acc_1", None, "Acme", AccountStatus.ACTIVE, 1, NOW, NOW)


def told() -> dict[str, Any]:
    """An event without a fault."""
    return {
        "id": "evt_1", "type": "account.created", "schema_version": 1, "account_id": "acc_1", "mode": "LIVE",
        "subject": "acc_1", "subject_seq": 1, "occurred_at": NOW.isoformat(), "actor": "opk_1", "source": "api",
        "reason": "", "data": event_data(ACCOUNT),
    }  # fmt: skip


@pytest.mark.parametrize(("payload", "model"), MODELS, ids=lambda one: getattr(one, "name", ""))
def test_a_schema_is_the_subject_without_what_hints_at_a_key(payload: Payload, model: Any) -> None:
    ours = {field.name for field in dataclasses.fields(model)} - LEFT_OUT
    if model is Policy:
        ours |= {field.name for field in dataclasses.fields(Terms)}
    assert {field.name for field in payload.fields} == ours
    assert len(payload.fields) == len(ours)


def test_every_payload_is_of_some_event_and_none_is_left_out_of_the_page() -> None:
    assert {event.payload.name for event in EVENTS.values()} == {payload.name for payload in PAYLOADS}
    assert len(MODELS) + len(OF_MACHINES) == len(PAYLOADS)


def test_texts_that_are_one_of_several_name_all_that_there_are() -> None:
    values = {field.name: field.values for field in payloads.LICENSE.fields}
    assert set(values["status"]) == set(Status)
    of_policies = {field.name: field.values for field in payloads.POLICY.fields}
    assert of_policies["template"] == tuple(map(str, TEMPLATES))
    for name, word in WORDS.items():
        assert of_policies[name] == tuple(map(str, word)), name


def test_no_schema_has_room_for_a_key() -> None:
    names = {field.name for event in EVENTS.values() for field in event.fields}
    assert not names & {"key", "hint", "key_hint", "key_hash", "secret", "ciphertext"}
    assert [p.name for p in PAYLOADS if "email" in {field.name for field in p.fields}] == ["customer"]


def test_names_are_dotted_and_in_lower_case_and_aliases_lead_to_one_of_them() -> None:
    for name in (*EVENTS, *ALIASES):
        assert name == name.lower()
        assert 2 <= len(name.split(".")) <= 3
    assert not EVENTS.keys() & ALIASES.keys()
    for alias, name in ALIASES.items():
        assert resolve(alias) is EVENTS[name]
    assert resolve("license.exploded") is None


def test_an_event_without_a_fault() -> None:
    assert list(faults_of(told())) == []


@pytest.mark.parametrize("name", [field.name for field in ENVELOPE])
def test_an_event_that_lacks_something(name: str) -> None:
    event = told()
    del event[name]
    assert f"{name} is missing" in list(faults_of(event))


@pytest.mark.parametrize("name", [field.name for field in payloads.ACCOUNT.fields])
def test_data_that_lack_something(name: str) -> None:
    event = told()
    del event["data"][name]
    assert list(faults_of(event)) == [f"data.{name} is missing"]


@pytest.mark.parametrize("held", ["envelope", "data"])
def test_something_that_is_not_in_the_schema(held: str) -> None:
    event = told()
    (event if held == "envelope" else event["data"])["hint"] = "ABCD"
    assert [fault.removeprefix("data.") for fault in faults_of(event)] == ["hint is not in the schema"]


@pytest.mark.parametrize(("name", "value"), [
    ("revision", "1"), ("revision", 1.5), ("revision", True), ("revision", None), ("status", "expired"), ("status", 1),
    ("created_at", "yesterday"), ("created_at", "2026-02-28T12:00:00"), ("display_name", None), ("external_id", 7),
])  # fmt: skip
def test_data_of_another_kind(name: str, value: object) -> None:
    event = deepcopy(told())
    event["data"][name] = value
    assert [fault.split(" is ")[0] for fault in faults_of(event)] == [f"data.{name}"]


@pytest.mark.parametrize(("kind", "good", "bad"), [
    (Kind.TEXTS, ["a"], ["a", 1]), (Kind.TEXTS, [], "a"), (Kind.LABELS, {"a": "b"}, {"a": 1}), (Kind.LABELS, {}, []),
    (Kind.OBJECT, {"a": {"b": None}}, ["a"]), (Kind.SECONDS, 1.5, True), (Kind.SECONDS, 60, "60"), (Kind.FLAG, False, 0),
    (Kind.TIME, NOW.isoformat(), 1.0), (Kind.WHOLE, 1, 1.0),
])  # fmt: skip
def test_kinds(kind: Kind, good: object, bad: object) -> None:
    (field,) = (dataclasses.replace(ENVELOPE[0], kind=kind),)
    assert (field.takes(good), field.takes(bad), field.takes(None)) == (True, False, False)


@pytest.mark.parametrize(
    "change", [{"type": "account.exploded"}, {"schema_version": 2}, {"data": []}, {"mode": "live"}]
)
def test_an_envelope_that_is_not_what_it_says(change: dict[str, Any]) -> None:
    assert list(faults_of({**told(), **change}))
