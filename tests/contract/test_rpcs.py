"""Every RPC says what it needs, what it does and how it fails, and has a place in HTTP of its own."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from lictor.account.v1.account_service_pb2 import PrincipalKind
from lictor.common.v1.options_pb2 import CallerKind, Effect

from services.license import fields as license_fields
from services.machine import fields as machine_fields
from shared.errors import Reason
from shared.rpc.auth import NARROW_KINDS
from shared.rpc.internal import CALLERS
from shared.tenancy import ACCOUNT_SCOPES, OPERATOR_SCOPES, PUBLISHABLE_SCOPES
from shared.tenancy import PrincipalKind as PrincipalKindOfCallers
from tests.contract.reading import Rpc, rpcs

TABLES = {**license_fields.TABLES, **machine_fields.TABLES}
BEATS = frozenset({"HeartbeatMachine", "HeartbeatProcess", "HoldSeat"})
"""What says again what it said before when it is repeated: it writes, and no answer of it is stored."""
REPEATED = {
    "HeartbeatMachine": "it is a heartbeat again",
    "HeartbeatProcess": "it is a heartbeat again",
    "HoldSeat": "by its `resume_token`",
}
ALL = pytest.mark.parametrize("rpc", rpcs(), ids=lambda rpc: rpc.name)
MUTATIONS = pytest.mark.parametrize(
    "rpc", [rpc for rpc in rpcs() if rpc.mutates and rpc.short not in BEATS], ids=lambda rpc: rpc.name
)
REASONS = frozenset(reason.value for reason in Reason)
ANONYMOUS = frozenset({"lictor.license.v1.TokenService.GetJsonWebKeySet"})
"""What needs no credential; the health of a process beside it, which is no RPC of ours."""
INTERNAL = frozenset({"lictor.license.v1.SigningService.SignFile"})
"""What other services of a deployment call, and no client."""
NO_SCOPE = frozenset({"lictor.account.v1.AccountService.WhoAmI"}) | ANONYMOUS | INTERNAL
ID_COMMENT = re.compile(r"^The id \(`[a-z]{2,8}_\.\.\.`\)")


def listed_reasons(rpc: Rpc) -> list[str]:
    found = re.search(r"Errors: ([A-Z_]+(?:, [A-Z_]+)*)\.", rpc.comment)
    return found[1].split(", ") if found else []


def test_there_are_rpcs() -> None:
    assert len(rpcs()) > 30


@ALL
def test_an_rpc_has_rules_and_a_scope(rpc: Rpc) -> None:
    assert rpc.ruled
    assert bool(rpc.scope) != (rpc.name in NO_SCOPE)


@ALL
def test_an_rpc_takes_a_credential_unless_it_stands_here(rpc: Rpc) -> None:
    assert rpc.anonymous == (rpc.name in ANONYMOUS)
    if rpc.anonymous:
        assert not rpc.mutates
        assert not rpc.also_serves


@ALL
def test_an_rpc_is_for_clients_unless_it_stands_here(rpc: Rpc) -> None:
    assert rpc.internal == (rpc.name in INTERNAL)
    assert rpc.internal == ("/" + "/".join(rpc.name.rsplit(".", 1)) in CALLERS)
    if rpc.internal:
        assert not rpc.also_serves
        assert not rpc.verb, "no HTTP leads to it"


def test_every_internal_method_is_an_rpc() -> None:
    assert len(CALLERS) == len(INTERNAL)
    assert all(CALLERS.values()), "a method that nobody may call"


def test_scopes_of_rpcs_and_of_keys_are_the_same() -> None:
    assert {rpc.scope for rpc in rpcs()} - {""} == ACCOUNT_SCOPES | OPERATOR_SCOPES


NARROW = {
    "AccountService.WhoAmI": {"PUBLISHABLE_KEY", "LICENSE_KEY", "CUSTOMER_SESSION"},
    "ValidationService.ValidateLicense": {"PUBLISHABLE_KEY", "LICENSE_KEY"},
    "ValidationService.BatchValidateLicenses": {"PUBLISHABLE_KEY"},
    "LicenseService.CheckInLicense": {"LICENSE_KEY"},
    "CustomerService.GetCustomer": {"CUSTOMER_SESSION"},
    "LicenseService.GetLicense": {"CUSTOMER_SESSION"},
    "LicenseService.ListLicenses": {"CUSTOMER_SESSION"},
    "LicenseService.RotateLicenseKey": {"CUSTOMER_SESSION"},
    "LicenseService.RevealLicenseKey": {"CUSTOMER_SESSION"},
    "ActivationService.ActivateMachine": {"PUBLISHABLE_KEY", "LICENSE_KEY"},
    "ActivationService.DeactivateSelf": {"PUBLISHABLE_KEY", "LICENSE_KEY"},
    "ActivationService.HeartbeatMachine": {"PUBLISHABLE_KEY", "LICENSE_KEY"},
    "ActivationService.HeartbeatProcess": {"PUBLISHABLE_KEY", "LICENSE_KEY"},
    "ActivationService.AcquireSeat": {"PUBLISHABLE_KEY", "LICENSE_KEY"},
    "ActivationService.RenewSeat": {"PUBLISHABLE_KEY", "LICENSE_KEY"},
    "ActivationService.HoldSeat": {"PUBLISHABLE_KEY", "LICENSE_KEY"},
    "ActivationService.ReleaseSeat": {"PUBLISHABLE_KEY", "LICENSE_KEY"},
    "ActivationService.IssueMachineFile": {"PUBLISHABLE_KEY", "LICENSE_KEY"},
    "ActivationService.ReturnMachineFile": {"PUBLISHABLE_KEY", "LICENSE_KEY"},
    "MachineService.GetMachine": {"CUSTOMER_SESSION"},
    "MachineService.ListMachines": {"CUSTOMER_SESSION"},
    "MachineService.ListProcesses": {"CUSTOMER_SESSION"},
    "MachineService.DeactivateMachine": {"CUSTOMER_SESSION"},
    "MachineService.TransferMachine": {"LICENSE_KEY"},
    "TokenService.IssueLicenseFile": {"LICENSE_KEY", "CUSTOMER_SESSION"},
}
"""What callers in other hands than the vendor's reach. An RPC that is not here is closed to them."""


@ALL
def test_an_rpc_is_closed_to_callers_in_other_hands_unless_it_stands_here(rpc: Rpc) -> None:
    name = ".".join(rpc.name.split(".")[-2:])
    assert rpc.also_serves == NARROW.get(name, set())
    if "PUBLISHABLE_KEY" in rpc.also_serves:
        assert rpc.scope in PUBLISHABLE_SCOPES | {""}


def test_kinds_of_callers_are_kinds_of_principals() -> None:
    assert {kind.value for kind in NARROW_KINDS} == set(CallerKind.Kind.keys()[1:])
    assert {kind.value for kind in PrincipalKindOfCallers} == set(PrincipalKind.Kind.keys()[1:])
    assert PUBLISHABLE_SCOPES < ACCOUNT_SCOPES


@ALL
def test_only_mutations_have_an_effect_and_all_have_one(rpc: Rpc) -> None:
    assert (rpc.effect != Effect.KIND_UNSPECIFIED) == rpc.mutates
    assert rpc.idempotent == (rpc.mutates and rpc.short not in BEATS)


@ALL
def test_a_scope_to_read_is_enough_to_read_and_not_to_write(rpc: Rpc) -> None:
    """What is written down is a mutation: to show a key, to check in, to use up, to issue a file; whoever may
    write may not do these."""
    if rpc.internal:
        return
    assert rpc.scope.endswith((":write", ":reveal", ":checkin", ":use", ":checkout", ":activate")) == rpc.mutates


@ALL
def test_a_comment_lists_reasons_that_exist_each_once(rpc: Rpc) -> None:
    listed = listed_reasons(rpc)
    assert listed, "the comment needs `Errors: A, B.`"
    assert set(listed) <= REASONS
    assert len(listed) == len(set(listed))


@ALL
def test_a_comment_lists_field_invalid_where_fields_are_checked(rpc: Rpc) -> None:
    checked = any(checks for kind, checks in TABLES.items() if kind.DESCRIPTOR.full_name == rpc.request.name)
    assert ("FIELD_INVALID" in listed_reasons(rpc)) == checked


@ALL
def test_a_comment_says_how_a_read_is_fresh_and_that_a_write_is_idempotent(rpc: Rpc) -> None:
    writes = REPEATED.get(rpc.short, "Idempotent by `request_id`")
    assert (writes if rpc.mutates else "Consistency: ") in rpc.comment


@ALL
def test_the_reasons_of_a_request_id_and_of_an_etag_are_listed(rpc: Rpc) -> None:
    listed = listed_reasons(rpc)
    assert ("REQUEST_ID_REUSED" in listed) == rpc.idempotent
    assert ("ETAG_MISMATCH" in listed) == ("etag" in rpc.request.fields)
    assert ("PAGE_TOKEN_INVALID" in listed) == ("page_token" in rpc.request.fields)
    if "external_id" in rpc.request.fields and rpc.mutates:
        assert "EXTERNAL_ID_TAKEN" in listed


@MUTATIONS
def test_a_mutation_takes_a_request_id_first_and_answers_with_a_token_and_a_time(rpc: Rpc) -> None:
    assert rpc.request.fields["request_id"].number == 1
    assert {"revision_token", "effective_time"} <= rpc.response.fields.keys()


@ALL
def test_request_and_response_are_named_after_the_rpc(rpc: Rpc) -> None:
    package = rpc.name.rpartition(".")[0].rpartition(".")[0]
    assert (rpc.request.name, rpc.response.name) == (f"{package}.{rpc.short}Request", f"{package}.{rpc.short}Response")


@ALL
def test_a_unary_rpc_has_an_http_mapping(rpc: Rpc) -> None:
    if rpc.unary and not rpc.internal:
        assert rpc.verb
        assert rpc.pattern.startswith("/v1/")
        assert rpc.body == ("*" if rpc.verb in {"post", "put", "patch"} else "")


def test_no_two_http_mappings_conflict() -> None:
    seen = Counter((rpc.verb, re.sub(r"\{[^}]*\}", "*", rpc.pattern)) for rpc in rpcs() if rpc.verb)
    assert [mapping for mapping, times in seen.items() if times > 1] == []


@ALL
def test_path_variables_are_our_own_ids(rpc: Rpc) -> None:
    for variable in rpc.variables:
        field = rpc.request.fields[variable]
        assert field.name.endswith("_id")
        assert field.name not in {"external_id", "request_id"}
        assert field.textual
        assert not field.redacted
        assert ID_COMMENT.match(field.comment), f"the comment of {variable} must begin with `The id` and its prefix"


@ALL
def test_nothing_secret_travels_in_a_query(rpc: Rpc) -> None:
    if rpc.verb and not rpc.body:
        assert [field.name for field in rpc.request.fields.values() if field.redacted] == []


def test_every_request_message_has_a_table_of_checks() -> None:
    assert {kind.DESCRIPTOR.full_name for kind in TABLES} == {rpc.request.name for rpc in rpcs()}
