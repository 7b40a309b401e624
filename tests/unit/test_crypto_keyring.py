"""The KEK's file, and what is wrapped under it: read again in its own place, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.crypto import keyring
from shared.crypto.keyring import FileKeyring, KekVersionError, Place, UnwrapError, Wrapped
from shared.crypto.private_files import SecretFileError, generate_line
from shared.tenancy import Mode, Tenant

OLD, NEW = bytes(range(32)), bytes(range(1, 33))
ONLY_OLD, BOTH, ONLY_NEW = FileKeyring(((1, OLD),)), FileKeyring(((2, NEW), (1, OLD))), FileKeyring(((2, NEW),))
PLACE = Place("license.license_key.ciphertext", Tenant("acc_1", Mode.TEST), "0a1b")
KEY = b"SHOP-0123-4567-89AB-CDEF"


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    path = tmp_path / "kek"
    path.touch(0o600)
    return path


def load(path: Path, text: str) -> FileKeyring:
    path.write_text(text)
    return keyring.load(path)


@given(plain=st.binary(max_size=300))
async def test_what_is_wrapped_is_unwrapped_and_not_seen(plain: bytes) -> None:
    first, second = await BOTH.wrap(plain, PLACE), await BOTH.wrap(plain, PLACE)
    assert [await BOTH.unwrap(one, PLACE) for one in (first, second)] == [plain, plain]
    assert (first.kek_version, len(first.nonce), len(first.ciphertext)) == (2, 12, len(plain) + 16)
    assert first.nonce != second.nonce
    assert plain not in first.ciphertext or len(plain) < 4


ELSEWHERE = {
    "column": replace(PLACE, column="license.license_key.other"),
    "account": replace(PLACE, tenant=Tenant("acc_2", Mode.TEST)),
    "mode": replace(PLACE, tenant=Tenant("acc_1", Mode.LIVE)),
    "row": replace(PLACE, row_id="0a1c"),
}


@pytest.mark.parametrize("place", ELSEWHERE.values(), ids=ELSEWHERE.keys())
async def test_it_is_refused_in_any_other_place(place: Place) -> None:
    wrapped = await BOTH.wrap(KEY, PLACE)
    with pytest.raises(UnwrapError, match="wrapped elsewhere"):
        await BOTH.unwrap(wrapped, place)


async def test_it_is_refused_under_another_version_even_of_the_same_bytes() -> None:
    same_bytes = FileKeyring(((2, OLD), (1, OLD)))
    wrapped = await same_bytes.wrap(KEY, PLACE)
    with pytest.raises(UnwrapError):
        await same_bytes.unwrap(replace(wrapped, kek_version=1), PLACE)


async def test_every_changed_byte_is_refused() -> None:
    wrapped = await BOTH.wrap(KEY, PLACE)

    def flipped(raw: bytes, at: int) -> bytes:
        return raw[:at] + bytes((raw[at] ^ 1,)) + raw[at + 1 :]

    changed = [replace(wrapped, nonce=flipped(wrapped.nonce, at)) for at in range(len(wrapped.nonce))]
    changed += [replace(wrapped, ciphertext=flipped(wrapped.ciphertext, at)) for at in range(len(wrapped.ciphertext))]
    changed += [replace(wrapped, ciphertext=wrapped.ciphertext[:end]) for end in (0, 15, len(wrapped.ciphertext) - 1)]
    changed += [replace(wrapped, nonce=b"")]
    for one in changed:
        with pytest.raises(UnwrapError) as refusal:
            await BOTH.unwrap(one, PLACE)
        assert KEY.decode() not in str(refusal.value)


async def test_both_live_versions_unwrap_and_the_newest_wraps() -> None:
    before = await ONLY_OLD.wrap(KEY, PLACE)
    during = await BOTH.wrap(KEY, PLACE)
    assert (before.kek_version, during.kek_version) == (1, 2)
    assert [await BOTH.unwrap(one, PLACE) for one in (before, during)] == [KEY, KEY]
    assert await ONLY_NEW.unwrap(during, PLACE) == KEY


async def test_a_version_that_is_gone_is_named() -> None:
    before = await ONLY_OLD.wrap(KEY, PLACE)
    with pytest.raises(KekVersionError, match="version 1 of the KEK, which is not in the file") as refusal:
        await ONLY_NEW.unwrap(before, PLACE)
    assert refusal.value.version == 1


async def test_another_kek_of_the_same_version_is_refused() -> None:
    wrapped = await ONLY_OLD.wrap(KEY, PLACE)
    with pytest.raises(UnwrapError, match="another KEK of version 1"):
        await FileKeyring(((1, NEW),)).unwrap(wrapped, PLACE)


async def test_what_is_wrapped_stays_readable() -> None:
    """Stored keys stand on it: a change of the binding would lose them all."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - the format, told a second time

    bound = b"lictor/1|license.license_key.ciphertext|acc_1|TEST|0a1b|1"
    stored = Wrapped(1, bytes(12), AESGCM(OLD).encrypt(bytes(12), KEY, bound))
    assert await ONLY_OLD.unwrap(stored, PLACE) == KEY


@pytest.mark.parametrize("bad", ["", "a|b"])
def test_a_place_cannot_be_read_as_another(bad: str) -> None:
    for column, account_id, row_id in ((bad, "acc_1", "r"), ("s.t.c", bad, "r"), ("s.t.c", "acc_1", bad)):
        with pytest.raises(ValueError, match="a place has three names"):
            Place(column, Tenant(account_id, Mode.TEST), row_id)


def test_a_file_has_one_or_two_versions_of_exactly_32_bytes(path: Path) -> None:
    assert load(path, generate_line(3)).live_versions == (3,)
    assert load(path, f"# a note\n1 {OLD.hex()}\n\n2 {NEW.hex()}\n") == BOTH
    for bad in (f"1 {OLD.hex()}00", f"1 {OLD.hex()[:-2]}", f"0 {OLD.hex()}", f"256 {OLD.hex()}"):
        with pytest.raises(
            SecretFileError, match=r"KEK file .*, line 1: needs a new version .* exactly 32 bytes"
        ) as one:
            load(path, bad)
        assert OLD.hex()[:8] not in str(one.value)
    for count, text in ((0, ""), (3, "".join(f"{n} {OLD.hex()}\n" for n in (1, 2, 3)))):
        with pytest.raises(SecretFileError, match=f"needs one or two versions, has {count}"):
            load(path, text)
    with pytest.raises(SecretFileError, match="line 1: expected `<version> <hex>`"):
        load(path, "kek")


@pytest.mark.parametrize(
    ("mode", "good"), [(0o600, True), (0o440, True), (0o644, False), (0o620, False), (0o602, False)]
)
def test_a_file_that_others_can_open_is_refused(path: Path, mode: int, good: bool) -> None:
    path.write_text(generate_line())
    path.chmod(mode)
    if good:
        assert keyring.load(path).live_versions == (1,)
    else:
        with pytest.raises(SecretFileError, match=r"KEK file .* is open to others: chmod 600 it"):
            keyring.load(path)


def test_a_missing_file_is_named(path: Path) -> None:
    path.unlink()
    with pytest.raises(SecretFileError, match=f"KEK file {path}: No such file"):
        keyring.load(path)


def test_the_key_is_not_shown() -> None:
    assert repr(OLD) not in repr(BOTH)
