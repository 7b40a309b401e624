"""API keys: a damaged one is refused by its checksum, without a look-up."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.crypto import api_keys
from shared.crypto.api_keys import KeyPrefix
from shared.tenancy import Mode

BASE62 = string.digits + string.ascii_letters
PREFIXES = st.sampled_from(list(KeyPrefix))


@given(PREFIXES)
def test_a_generated_key_says_what_it_opens(prefix: KeyPrefix) -> None:
    key = api_keys.generate(prefix)
    assert api_keys.parse(key) is prefix
    assert key.startswith(prefix.value)
    body = key.removeprefix(prefix.value)
    assert len(body) == 43 + 6
    assert set(body) <= set(BASE62)


def test_keys_are_random() -> None:
    keys = {api_keys.generate(KeyPrefix.SECRET_LIVE) for _ in range(200)}
    assert len(keys) == 200
    middles = [{key[place] for key in keys} for place in range(8 + 1, 8 + 43)]  # the first digit of 43 is a small one
    assert all(len(seen) > 30 for seen in middles)


def test_the_mode_is_in_the_prefix() -> None:
    assert api_keys.secret_prefix(Mode.LIVE) is KeyPrefix.SECRET_LIVE
    assert api_keys.secret_prefix(Mode.TEST) is KeyPrefix.SECRET_TEST
    assert api_keys.publishable_prefix(Mode.LIVE) is KeyPrefix.PUBLISHABLE_LIVE
    assert api_keys.publishable_prefix(Mode.TEST) is KeyPrefix.PUBLISHABLE_TEST
    assert api_keys.session_prefix(Mode.LIVE) is KeyPrefix.SESSION_LIVE
    assert api_keys.session_prefix(Mode.TEST) is KeyPrefix.SESSION_TEST
    assert [prefix.value for prefix in KeyPrefix] == [
        "sk_live_", "sk_test_", "pk_live_", "pk_test_", "cs_live_", "cs_test_", "op_",
    ]  # fmt: skip


def test_every_change_of_one_character_is_refused() -> None:
    key = api_keys.generate(KeyPrefix.SECRET_TEST)
    for place, letter in enumerate(key):
        for other in BASE62 + "_- é":
            if other != letter:
                assert api_keys.parse(key[:place] + other + key[place + 1 :]) is None, (key, place, other)


@given(PREFIXES, st.data())
def test_damaged_keys_are_refused(prefix: KeyPrefix, data: st.DataObject) -> None:
    key = api_keys.generate(prefix)
    place = data.draw(st.integers(0, len(key) - 1))
    letter = data.draw(st.characters(codec="utf-8").filter(lambda c: c != key[place]))
    assert api_keys.parse(key[:place] + letter + key[place + 1 :]) is None
    assert api_keys.parse(key[:place] + key[place + 1 :]) is None
    assert api_keys.parse(key[:place] + letter + key[place:]) is None


@given(PREFIXES, st.data())
def test_neighbours_that_change_places_are_noticed(prefix: KeyPrefix, data: st.DataObject) -> None:
    key = api_keys.generate(prefix)
    place = data.draw(st.integers(0, len(key) - 2))
    swapped = key[:place] + key[place + 1] + key[place] + key[place + 2 :]
    assert (api_keys.parse(swapped) is None) == (key[place] != key[place + 1])


def test_a_key_of_one_mode_cannot_be_relabelled() -> None:
    key = api_keys.generate(KeyPrefix.SECRET_TEST)
    assert api_keys.parse(key.replace("sk_test_", "sk_live_")) is None
    for prefix in KeyPrefix:
        if prefix is not KeyPrefix.SECRET_TEST:
            assert api_keys.parse(key.replace("sk_test_", prefix.value)) is None


@given(st.text())
def test_any_other_text_is_no_key(text: str) -> None:
    assert api_keys.parse(text) is None
    assert api_keys.parse("sk_live_" + text) is None


@pytest.mark.parametrize("around", [" {}", "{} ", "{}\n", "\t{}", "Bearer {}"])
def test_nothing_stands_around_a_key(around: str) -> None:
    assert api_keys.parse(around.format(api_keys.generate(KeyPrefix.OPERATOR))) is None
