"""The life of a signing key: every action in every state, and which key signs when."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from services.license.signing_key_model import (
    KeyAction,
    KeyAlgorithm,
    KeyPurpose,
    KeyStatus,
    Living,
    SigningKey,
    change,
    refuse_second_pending,
)
from shared.errors import DomainError, Reason
from tests.helpers.builders import table

NOW = datetime(2030, 1, 1, tzinfo=UTC)
US = timedelta(microseconds=1)
LIFE = table("""
              activate  retire   revoke
    PENDING   ACTIVE    -        REVOKED
    ACTIVE    -         RETIRED  REVOKED
    RETIRED   -         -        REVOKED
    REVOKED   -         -        -
""")


def key(status: KeyStatus, activates_at: datetime = NOW) -> SigningKey:
    return SigningKey(
        f"kid_{status.value.lower()}", "prod_1", KeyPurpose.FILE, KeyAlgorithm.ED25519, status, {"kty": "OKP"},
        activates_at, None, None, 3, NOW - timedelta(days=1), NOW - timedelta(days=1),
    )  # fmt: skip


def test_the_table_tells_of_every_pair() -> None:
    assert set(LIFE) == {(status.value, action.value) for status, action in product(KeyStatus, KeyAction)}


@pytest.mark.parametrize(("status", "action"), list(product(KeyStatus, KeyAction)))
def test_an_action_does_what_the_table_says(status: KeyStatus, action: KeyAction) -> None:
    before, expected = key(status), LIFE[status.value, action.value]
    if expected == "-":
        with pytest.raises(DomainError) as refused:
            change(before, action, NOW)
        assert refused.value.reason is Reason.STATE_TRANSITION_INVALID
        assert refused.value.metadata == {"from": status.value, "action": action.value}
        return
    after = change(before, action, NOW)
    assert after.status.value == expected
    assert after.retired_at == (NOW if expected == "RETIRED" else None)
    assert after.revoked_at == (NOW if expected == "REVOKED" else None)
    assert (after.revision, after.updated_at) == (4, NOW)
    assert replace(
        after, status=before.status, retired_at=None, revoked_at=None, revision=3, updated_at=before.updated_at
    ) == before  # fmt: skip


def test_a_key_that_retired_keeps_the_time_of_that_when_it_is_revoked() -> None:
    retired = change(key(KeyStatus.ACTIVE), KeyAction.RETIRE, NOW)
    revoked = change(retired, KeyAction.REVOKE, NOW + US)
    assert (revoked.retired_at, revoked.revoked_at) == (NOW, NOW + US)


ACTIVE, PENDING = key(KeyStatus.ACTIVE), key(KeyStatus.PENDING, NOW)


@pytest.mark.parametrize(
    ("keys", "now", "signs"),
    [
        ([], NOW, None),
        ([ACTIVE], NOW, ACTIVE),
        ([ACTIVE, PENDING], NOW - US, ACTIVE),
        ([ACTIVE, PENDING], NOW, PENDING),
        ([PENDING, ACTIVE], NOW + US, PENDING),
        ([PENDING], NOW - US, PENDING),  # the active one was revoked
        ([key(KeyStatus.RETIRED), key(KeyStatus.REVOKED)], NOW, None),
    ],
)
def test_which_key_signs(keys: list[SigningKey], now: datetime, signs: SigningKey | None) -> None:
    assert Living.of(keys).signer(now) == signs


def test_no_two_keys_wait() -> None:
    refuse_second_pending(Living.of([ACTIVE]))
    with pytest.raises(DomainError) as refused:
        refuse_second_pending(Living.of([ACTIVE, PENDING]))
    assert refused.value.metadata == {"from": "PENDING", "action": "rotate"}
