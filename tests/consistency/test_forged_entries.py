"""What the hammer puts in place of facts in Redis would be taken for new, were it not for the seal."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from shared.crypto.root_secret import RootSecret
from shared.facts.codec import decode, encode
from shared.freshness.memory import Fact
from shared.freshness.sealed_entry import BODY_AT, Refusal, Sealer
from shared.freshness.snapshot import Snapshot, Stamp
from tests.consistency.valkey_faults import as_if_new

NAME = b"lictor:facts:1"
BREAKS = UUID(bytes=b"\n" * 16)


@given(st.binary(min_size=32, max_size=32), st.uuids() | st.just(BREAKS))
def test_old_facts_have_the_newest_stamp(secret: bytes, epoch: UUID) -> None:
    sealer = Sealer(RootSecret(((1, secret),)))
    old, new = Stamp(7, epoch, Snapshot.parse("10:10:")), Stamp(7, epoch, Snapshot.parse("20:20:"))
    fact, changed = Fact("customer:1", None, 10), Fact("customer:2", None, 20)
    first, newest = (sealer.seal(NAME, epoch, encode(*entry)) for entry in ((old, [fact]), (new, [changed, fact])))
    forged = as_if_new(first, newest)
    assert decode(forged[BODY_AT:]) == (new, [fact])
    assert sealer.open(NAME, epoch, forged) is Refusal.FORGED
