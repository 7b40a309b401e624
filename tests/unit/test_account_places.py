"""The places of a process by account: a table of who is in, who comes, and who is refused."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from shared.db.lanes import LANE
from shared.errors import DomainError, Reason
from shared.rpc import accounts
from shared.rpc.accounts import OPERATORS, STRANGERS, AccountPlaces
from shared.tenancy import Mode, Principal, PrincipalKind


@pytest.fixture(autouse=True)
def own_lane() -> Generator[None]:
    """Tests of one session may share a context."""
    yield
    LANE.set("")


def principal(account_id: str) -> Principal:
    kind = PrincipalKind.SECRET_KEY if account_id else PrincipalKind.OPERATOR
    return Principal(kind, account_id, Mode.TEST if account_id else None, "key", frozenset(), None)


def come(places: AccountPlaces, account_id: str, credential: str = "") -> str:
    """A call of an account from its arrival until its handler; under whom it counts."""
    credential = credential or f"Bearer of {account_id}"
    whose = places.arrive(credential)
    try:
        return places.known(whose, credential, principal(account_id))
    except DomainError:
        places.leave(whose)
        raise


@pytest.mark.parametrize(
    ("places", "percent", "most"),
    [(512, 25, 128), (512, 100, 512), (100, 1, 1), (8, 25, 2), (7, 25, 1), (3, 25, 1), (1, 25, 1), (512, 50, 256)],
)
def test_an_account_takes_its_share_and_the_next_call_is_refused(places: int, percent: int, most: int) -> None:
    counted = AccountPlaces(places, percent)
    for _ in range(most):
        come(counted, "acc_1")
    assert counted.taken("acc_1") == most
    with pytest.raises(DomainError) as refused:
        come(counted, "acc_1")
    assert refused.value.reason is Reason.OVERLOADED
    assert refused.value.retry_after_ms == 100
    assert refused.value.message == f"{most} calls of this account are in flight already"
    assert counted.taken(STRANGERS) == 0, "a refused call leaves nothing behind"
    assert come(counted, "acc_2") == "acc_2", "another account finds a place"
    counted.leave("acc_1")
    assert come(counted, "acc_1") == "acc_1"


def test_two_keys_of_one_account_share_its_places() -> None:
    counted = AccountPlaces(8)
    come(counted, "acc_1", "Bearer one")
    come(counted, "acc_1", "Bearer two")
    with pytest.raises(DomainError):
        come(counted, "acc_1", "Bearer three")


def test_a_credential_that_is_known_is_refused_before_it_is_loaded() -> None:
    counted = AccountPlaces(8)
    for _ in range(2):
        come(counted, "acc_1")
    with pytest.raises(DomainError, match="this account"):
        counted.arrive("Bearer of acc_1")


def test_credentials_that_are_not_known_share_places_and_leave_those_of_others() -> None:
    counted = AccountPlaces(8)
    come(counted, "acc_1")
    for n in range(2):
        assert counted.arrive(f"Bearer bad {n}") == STRANGERS
    with pytest.raises(DomainError, match="not known yet"):
        counted.arrive("Bearer bad 2")
    assert come(counted, "acc_1") == "acc_1", "one that is known needs no place among strangers"


def test_a_credential_that_changes_hands_counts_where_it_belongs() -> None:
    """As a SPIFFE ID does when its binding is replaced."""
    counted = AccountPlaces(8)
    assert come(counted, "acc_1", "id") == "acc_1"
    assert come(counted, "acc_2", "id") == "acc_2"
    assert (counted.taken("acc_1"), counted.taken("acc_2")) == (1, 1)


def test_operators_are_one() -> None:
    counted = AccountPlaces(8)
    assert come(counted, "") == OPERATORS
    assert counted.taken(OPERATORS) == 1


def test_the_lane_is_the_accounts() -> None:
    counted = AccountPlaces(8)
    counted.arrive("Bearer of acc_1")
    assert LANE.get() == STRANGERS
    come(counted, "acc_1")
    assert LANE.get() == "acc_1"


def test_what_is_remembered_is_bounded_and_no_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "MAX_SEEN", 10)
    counted = AccountPlaces(512)
    for n in range(100):
        counted.leave(come(counted, "acc_1", f"secret {n}"))
    seen = vars(counted)["_seen"]
    assert len(seen) == 10
    assert all(isinstance(mark, int) for mark in seen)
    assert counted.arrive("secret 99") == "acc_1"
    assert counted.arrive("secret 0") == STRANGERS
