"""Resume tokens: what goes in comes out, and nothing else does."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from shared.crypto.root_secret import RootSecret
from shared.errors import DomainError
from shared.freshness.resume import MAX_CHARS, ResumePoint, ResumeTokens
from shared.freshness.snapshot import Snapshot, Stamp
from shared.tenancy import Mode, Tenant

OLD, NEW = (1, b"a" * 32), (2, b"b" * 32)
TENANT = Tenant("acc_1", Mode.TEST)
AT = datetime(2031, 2, 3, 4, 5, 6, 789, UTC)


def point(snapshot: Snapshot) -> ResumePoint:
    return ResumePoint(Stamp(2**63 + 7, UUID(int=5), snapshot), AT)


SNAPSHOTS = [
    Snapshot(1, 1, frozenset()),
    Snapshot(10, 20, frozenset({10, 15})),
    Snapshot(2**62, 2**62 + 1, frozenset()),
]


@pytest.mark.parametrize("snapshot", SNAPSHOTS)
def test_what_goes_in_comes_out(snapshot: Snapshot) -> None:
    tokens = ResumeTokens(RootSecret((NEW, OLD)))
    token = tokens.make(TENANT, "f", point(snapshot))
    assert len(token) <= MAX_CHARS
    assert tokens.read(TENANT, "f", token) == point(snapshot)
    assert ResumeTokens(RootSecret(((3, b"c" * 32), NEW))).read(TENANT, "f", token) == point(snapshot)


def test_a_snapshot_with_very_many_transactions_becomes_one_that_sees_less() -> None:
    running = frozenset(range(10**15, 10**15 + 2000, 2))
    many = Snapshot(10**15, 10**15 + 2000, running)
    tokens = ResumeTokens(RootSecret((NEW,)))
    token = tokens.make(TENANT, "f", point(many))
    assert len(token) <= MAX_CHARS
    seen = tokens.read(TENANT, "f", token).stamp.snapshot
    assert many.covers(seen)
    assert not any(seen.sees(xid) for xid in running)


def why(tokens: ResumeTokens, token: str, tenant: Tenant = TENANT, filters: str = "f") -> str:
    with pytest.raises(DomainError) as caught:
        tokens.read(tenant, filters, token)
    assert caught.value.reason.value == "RESYNC_REQUIRED"
    return caught.value.metadata["why"]


def test_every_changed_character_is_noticed() -> None:
    tokens = ResumeTokens(RootSecret((NEW,)))
    token = tokens.make(TENANT, "f", point(SNAPSHOTS[1]))
    for n in range(len(token) - 1):  # the last one has bits that stand for nothing
        changed = token[:n] + ("A" if token[n] != "A" else "B") + token[n + 1 :]
        assert why(tokens, changed) == "UNREADABLE"
    for bad in ("", "x", "=", "é", token[:-4], token + "AAAA"):
        assert why(tokens, bad) == "UNREADABLE"


def test_a_token_is_of_one_tenant_one_stream_and_one_secret() -> None:
    tokens = ResumeTokens(RootSecret((NEW,)))
    token = tokens.make(TENANT, "f", point(SNAPSHOTS[1]))
    assert why(tokens, token, filters="g") == "FILTER"
    assert why(tokens, token, Tenant("acc_2", Mode.TEST)) == "FILTER"
    assert why(tokens, token, Tenant("acc_1", Mode.LIVE)) == "FILTER"
    assert why(ResumeTokens(RootSecret((OLD,))), token) == "UNREADABLE"
