"""The five templates against the design's table."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Any

import pytest
from lictor.license.v1.catalog_service_pb2 import PolicyTemplate

from services.license.terms import TEMPLATES, UNLIMITED, Template, Terms, refuse_unconfirmed
from shared.errors import DomainError, Reason

GENERAL: dict[str, Any] = {
    "duration": None, "is_trial": False, "max_machines": None, "floating": False,
    "require_fingerprint": True, "require_heartbeat": False, "heartbeat_interval": timedelta(seconds=600),
    "offline_allowed": True, "offline_max_ttl": timedelta(days=14), "expiration_strategy": "RESTRICT_ACCESS",
    "grace_period": timedelta(0), "expiration_basis": "FROM_CREATION", "renewal_basis": "FROM_EXPIRY",
    "transfer_strategy": "KEEP_EXPIRY", "trial_duration": None, "max_uses": None, "uses_counted_by": "EXPLICIT",
    "overage_strategy": "NO_OVERAGE", "require_check_in": False, "require_product_scope": False,
    "require_policy_scope": False, "require_user_scope": False, "protected": False, "authentication": "LICENSE",
    "overridable": (), "stale_ok_for": timedelta(0), "strict": True, "max_users": None, "max_cores": None,
    "max_memory_bytes": None, "max_disk_bytes": None, "max_processes": None, "machine_uniqueness": "UNIQUE_PER_LICENSE",
    "machine_matching": "MATCH_ANY", "component_uniqueness": "UNIQUE_PER_MACHINE", "component_matching": "MATCH_ANY",
    "machine_leasing": "PER_LICENSE", "process_leasing": "PER_MACHINE", "seat_acquire": "REJECT",
    "require_machine_scope": False, "require_components_scope": False, "heartbeat_basis": "FROM_FIRST_PING",
    "heartbeat_cull": "DEACTIVATE_DEAD", "heartbeat_resurrection": "NO_REVIVE", "max_transfers": None,
    "transfer_period": timedelta(days=30), "allow_machine_transfer": False,
}  # fmt: skip
DESIGN: dict[str, dict[str, Any]] = {
    "custom": {},
    "desktop_app": {"max_machines": 2},
    "cli_tool": {"max_machines": 3, "offline_max_ttl": timedelta(days=7)},
    "saas": {
        "duration": timedelta(days=30), "floating": True, "require_fingerprint": False,
        "require_heartbeat": True, "heartbeat_interval": timedelta(minutes=1440), "offline_allowed": False,
    },
    "trial": {"duration": timedelta(days=14), "is_trial": True, "max_machines": 1, "offline_allowed": False},
}  # fmt: skip


@pytest.mark.parametrize("name", DESIGN)
def test_a_template_fills_what_the_design_says(name: str) -> None:
    assert asdict(TEMPLATES[Template(name)]) == asdict(Terms()) | GENERAL | DESIGN[name]
    assert (Template(name) in UNLIMITED) is (name == "saas")


def test_the_five_templates_are_those_of_the_contract() -> None:
    contract = {name for name, number in PolicyTemplate.Kind.items() if number}
    assert {template.value for template in Template} == set(DESIGN) == contract == {t.value for t in TEMPLATES}


def test_unlimited_machines_take_somebody_who_says_so() -> None:
    refuse_unconfirmed(1, confirmed=False)
    refuse_unconfirmed(None, confirmed=True)
    with pytest.raises(DomainError) as caught:
        refuse_unconfirmed(None, confirmed=False)
    assert (caught.value.reason, caught.value.metadata) == (Reason.UNLIMITED_NOT_CONFIRMED, {"field": "max_machines"})
