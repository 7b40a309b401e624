"""License keys: their form, their canonical form, and how much chance is in them."""

from __future__ import annotations

import re
import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.license import keys

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
FORM = re.compile(r"[A-Z0-9]{2,16}(-[0-9A-HJKMNP-TV-Z]{4}){4}")
codes = st.from_regex(r"[A-Z0-9]{2,16}", fullmatch=True)


@settings(deadline=None)
@given(codes)
def test_a_key_is_the_code_and_four_groups_of_four(code: str) -> None:
    key = keys.generate(code)
    assert FORM.fullmatch(key)
    assert key.rsplit("-", 4)[0] == code
    assert keys.hint(key) == key[-4:]


def test_the_alphabet_leaves_out_what_is_misread() -> None:
    assert keys.ALPHABET == CROCKFORD
    assert not set("ILOU") & set(keys.ALPHABET)


def test_a_key_holds_eighty_random_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def source(bits: int) -> int:
        asked.append(bits)
        return values.pop(0)

    monkeypatch.setattr(secrets, "randbits", source)
    values = [0, 2**80 - 1, *(1 << bit for bit in range(80))]
    made = {keys.generate("AB") for _ in range(82)}
    assert asked == [80] * 82
    assert len(made) == 82, "every one of the 80 bits changes the key"
    assert {"AB-0000-0000-0000-0000", "AB-ZZZZ-ZZZZ-ZZZZ-ZZZZ"} <= made


def test_keys_are_unique_and_use_every_character() -> None:
    made = [keys.generate("AB") for _ in range(5000)]
    assert len(set(made)) == 5000
    assert {char for key in made for char in key[3:] if char != "-"} == set(CROCKFORD)


@pytest.mark.parametrize(
    ("spelt", "canonical"),
    [
        ("PROAPP-0000-1111-ABCD-EFGH", "PR0APP-0000-1111-ABCD-EFGH"),
        ("proapp-oooo-iill-abcd-efgh", "PR0APP-0000-1111-ABCD-EFGH"),
        (" PrOaPp-0oO0-1IlL-aBcD-eFgH\n", "PR0APP-0000-1111-ABCD-EFGH"),
        ("my own key!", "MY 0WN KEY!"),
    ],
)
def test_spellings_of_one_key(spelt: str, canonical: str) -> None:
    assert keys.canonical(spelt) == canonical


@settings(deadline=None)
@given(st.from_regex(FORM, fullmatch=True), st.data())
def test_any_misreading_of_a_key_is_that_key(key: str, data: st.DataObject) -> None:
    looks_like = {"0": "0oO", "O": "0oO", "1": "1iIlL", "I": "1iIlL", "L": "1iIlL"}
    misread = "".join(data.draw(st.sampled_from(looks_like.get(char, char + char.lower()))) for char in key)
    assert keys.canonical(misread) == keys.canonical(key)


@settings(deadline=None)
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=255))
def test_the_canonical_form_is_its_own(own_key: str) -> None:
    assert keys.canonical(keys.canonical(own_key)) == keys.canonical(own_key)


def test_other_characters_are_told_apart() -> None:
    assert len({keys.canonical(char * 8) for char in CROCKFORD}) == len(CROCKFORD)
