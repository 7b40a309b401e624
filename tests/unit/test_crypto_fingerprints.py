"""Hashes of fingerprints: of one account, mode, component and value, under one version of the root secret."""

from __future__ import annotations

import hashlib
import hmac

from hypothesis import given
from hypothesis import strategies as st

from shared.crypto.fingerprints import PLAIN, FingerprintHasher
from shared.crypto.root_secret import RootSecret
from shared.rules.fingerprints import MatchingRule, match
from shared.tenancy import Mode, Tenant

OLD, NEW = bytes(range(32)), bytes(range(1, 33))
BEFORE = FingerprintHasher(RootSecret(((1, OLD),)))
DURING = FingerprintHasher(RootSecret(((2, NEW), (1, OLD))))
AFTER = FingerprintHasher(RootSecret(((2, NEW),)))
LIVE = Tenant("acc_1", Mode.LIVE)
WORDS = st.text(alphabet="ab|/_1", max_size=4)
PLACES = st.tuples(WORDS, st.sampled_from(Mode), WORDS, WORDS)


def hash_of(place: tuple[str, Mode, str, str]) -> bytes:
    account, mode, component, value = place
    return DURING.hash(Tenant(account, mode), value, component)


@given(st.text(min_size=8).filter(lambda text: text.isprintable()))
def test_a_hash_of_the_old_version_is_still_a_candidate(value: str) -> None:
    stored_before, stored_during = BEFORE.hash(LIVE, value), DURING.hash(LIVE, value)
    assert DURING.candidates(LIVE, value) == [stored_during, stored_before]
    assert AFTER.candidates(LIVE, value) == [stored_during]
    assert (stored_before[0], stored_during[0], len(stored_during)) == (1, 2, 33)


@given(PLACES, PLACES)
def test_a_hash_is_of_one_account_mode_component_and_value(
    one: tuple[str, Mode, str, str], other: tuple[str, Mode, str, str]
) -> None:
    """Short words of few letters, so that parts often meet at another boundary."""
    assert (hash_of(one) == hash_of(other)) == (one == other)


def test_parts_do_not_run_into_one_another() -> None:
    live, value = Mode.LIVE, "12345678"
    assert hash_of(("ab", live, "c", value)) != hash_of(("a", live, "bc", value))
    assert hash_of(("a", live, "mac", value)) != hash_of(("a", live, PLAIN, "mac" + value))
    assert hash_of(("a", live, PLAIN, value)) != hash_of(("a", Mode.TEST, PLAIN, value))


def test_stored_hashes_stay_what_they_are() -> None:
    """Machines are found by them: a change of the derivation or of the bytes would lose every machine."""
    extracted = hmac.digest(bytes(32), OLD, hashlib.sha256)
    key = hmac.digest(extracted, b"lictor/1|fingerprint|1\x01", hashlib.sha256)
    placed = b"\0\0\0\x05acc_1" + b"\0\0\0\x04LIVE" + b"\0\0\0\x03mac" + b"\0\0\0\x0812345678"
    assert BEFORE.hash(LIVE, "12345678", "mac") == b"\x01" + hmac.digest(key, placed, hashlib.sha256)


def test_a_set_matches_what_was_stored_before_the_secret_was_renewed() -> None:
    components = {"machine_id": "12345678", "mac": "abcdefgh"}
    known = {BEFORE.hash(LIVE, value, name) for name, value in components.items()}
    presented = DURING.candidates_of(LIVE, components)
    assert match(MatchingRule.MATCH_ALL, presented, known).is_met
    assert match(MatchingRule.MATCH_ALL, AFTER.candidates_of(LIVE, components), known).matched == ()
    swapped = DURING.candidates_of(LIVE, {"machine_id": "abcdefgh", "mac": "12345678"})
    assert match(MatchingRule.MATCH_ALL, swapped, known).matched == ()
