"""An entry in Redis opens under its own key, in its own epoch and with its own secret, and in no other way."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.crypto.root_secret import RootSecret
from shared.freshness.sealed_entry import MAX_BODY_BYTES, MAX_ENTRY_BYTES, Refusal, Sealer

OLD, NEW = (1, bytes(range(32))), (2, bytes(range(1, 33)))
SEALER = Sealer(RootSecret((OLD,)))
EPOCH, LATER = UUID(int=7), UUID(int=8)
NAME = SEALER.name("key/acc_1/TEST")
ENTRY = SEALER.seal(NAME, EPOCH, b"facts")


@given(st.text(), st.uuids(), st.binary(max_size=4096))
def test_it_opens_as_it_was_sealed(root: str, epoch: UUID, body: bytes) -> None:
    name = SEALER.name(root)
    assert SEALER.open(name, epoch, SEALER.seal(name, epoch, body)) == body


@given(st.integers(0, len(ENTRY) - 1), st.integers(1, 255))
def test_no_bit_of_it_can_be_changed(place: int, change: int) -> None:
    changed = bytearray(ENTRY)
    changed[place] ^= change
    assert SEALER.open(NAME, EPOCH, bytes(changed)) in (Refusal.FORGED, Refusal.MALFORMED)


@given(st.binary(max_size=200))
def test_garbage_does_not_open(garbage: bytes) -> None:
    assert SEALER.open(NAME, EPOCH, garbage) in (Refusal.FORGED, Refusal.MALFORMED)


@pytest.mark.parametrize("kept", range(len(ENTRY)))
def test_a_part_of_it_does_not_open(kept: int) -> None:
    assert SEALER.open(NAME, EPOCH, ENTRY[:kept]) in (Refusal.FORGED, Refusal.MALFORMED)


def test_it_is_of_one_key_one_epoch_and_one_secret() -> None:
    rotated = Sealer(RootSecret((NEW, OLD)))
    assert SEALER.open(SEALER.name("key/acc_2/TEST"), EPOCH, ENTRY) is Refusal.FORGED
    assert SEALER.open(NAME, LATER, ENTRY) is Refusal.OTHER_EPOCH
    assert rotated.open(NAME, EPOCH, ENTRY) is Refusal.FORGED
    # A forged entry is not believed about its epoch either.
    forged = ENTRY[:1] + LATER.bytes + ENTRY[17:]
    assert SEALER.open(NAME, LATER, forged) is Refusal.FORGED


def test_while_two_secrets_live_entries_of_the_older_are_not_even_found() -> None:
    assert Sealer(RootSecret((NEW, OLD))).name("key/acc_1/TEST") != NAME
    assert Sealer(RootSecret((OLD, NEW))).name("key/acc_1/TEST") == NAME


def test_names_tell_nothing_and_have_one_length() -> None:
    names = {SEALER.name("x" * length) for length in range(300)}
    assert len(names) == 300
    assert {len(name) for name in names} == {len(NAME)}
    assert b"acc_1" not in NAME
    assert Sealer(RootSecret((NEW,))).hint_channel() != SEALER.hint_channel()


def test_the_size_is_looked_at_first() -> None:
    assert SEALER.open(NAME, EPOCH, bytes(MAX_ENTRY_BYTES + 1)) is Refusal.OVERSIZE
    largest = bytes(MAX_BODY_BYTES)
    assert SEALER.open(NAME, EPOCH, SEALER.seal(NAME, EPOCH, largest)) == largest
    assert SEALER.open(NAME, EPOCH, SEALER.seal(NAME, EPOCH, largest + b"x")) is Refusal.OVERSIZE


def test_an_entry_of_a_format_to_come_is_a_miss() -> None:
    assert SEALER.open(NAME, EPOCH, b"\x02" + ENTRY[1:]) is Refusal.MALFORMED
