"""The root secret's file, and the keys that are derived from it."""

from __future__ import annotations

import hashlib
import hmac
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.crypto import root_secret
from shared.crypto.hashing import SecretHasher
from shared.crypto.private_files import SecretFileError, generate_line
from shared.crypto.root_secret import Purpose, RootSecret

OLD, NEW = bytes(range(32)), bytes(range(1, 33))
BOTH = RootSecret(((2, NEW), (1, OLD)))
ONLY_OLD = RootSecret(((1, OLD),))
ONLY_NEW = RootSecret(((2, NEW),))


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    path = tmp_path / "root-secret"
    path.touch(0o600)
    return path


def load(path: Path, text: str) -> RootSecret:
    path.write_text(text)
    return root_secret.load(path)


def test_a_generated_file_is_good(path: Path) -> None:
    line = generate_line(7)
    assert line.endswith("\n")
    assert load(path, line).live_versions == (7,)
    assert generate_line() != generate_line()
    assert len(load(path, generate_line()).versions[0][1]) == 32


def test_the_newest_of_two_versions_is_current_in_whatever_order(path: Path) -> None:
    lines = [f"1 {OLD.hex()}\n", "# a note\n", "\n", f"2 {NEW.hex()}\n"]
    for text in ("".join(lines), "".join(reversed(lines))):
        loaded = load(path, text)
        assert loaded == BOTH
        assert (loaded.current, loaded.live_versions) == (2, (2, 1))


def test_a_missing_file_is_named(path: Path) -> None:
    path.unlink()
    with pytest.raises(SecretFileError, match=rf"root secret file {path}: No such file or directory"):
        root_secret.load(path)
    with pytest.raises(SecretFileError, match="Is a directory"):
        root_secret.load(path.parent)


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o620, 0o644, 0o666])
def test_a_file_that_others_can_open_is_refused(path: Path, mode: int) -> None:
    path.write_text(generate_line())
    path.chmod(mode)
    with pytest.raises(SecretFileError, match="is open to others: chmod 600 it"):
        root_secret.load(path)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640])
def test_a_mounted_secret_may_be_read_by_its_group(path: Path, mode: int) -> None:
    path.write_text(generate_line())
    path.chmod(mode)
    assert root_secret.load(path).current == 1


@pytest.mark.parametrize(
    "line", ["1", OLD.hex(), f"one {OLD.hex()}", f"1 {OLD.hex()} more", f"1 {OLD.hex()[:-1]}x", f"1.0 {OLD.hex()}"]
)
def test_a_malformed_line_is_named_and_not_shown(path: Path, line: str) -> None:
    with pytest.raises(SecretFileError, match="line 2: expected `<version> <hex>`") as refusal:
        load(path, f"# first\n{line}\n")
    assert OLD.hex()[:8] not in str(refusal.value)
    assert refusal.value.__cause__ is None


@pytest.mark.parametrize(
    "line", [f"0 {OLD.hex()}", f"256 {OLD.hex()}", f"-1 {OLD.hex()}", f"3 {OLD.hex()[:62]}", f"1 {NEW.hex()}"]
)
def test_a_bad_version_or_a_short_secret_is_named(path: Path, line: str) -> None:
    with pytest.raises(SecretFileError, match="line 2: needs a new version from 1 to 255 and at least 32 bytes"):
        load(path, f"1 {OLD.hex()}\n{line}\n")


@pytest.mark.parametrize(
    ("count", "text"), [(0, ""), (0, "# nothing\n\n"), (3, "".join(f"{n} {OLD.hex()}\n" for n in (1, 2, 3)))]
)
def test_there_are_one_or_two_versions(path: Path, count: int, text: str) -> None:
    with pytest.raises(SecretFileError, match=f"needs one or two versions, has {count}"):
        load(path, text)


def test_a_file_that_is_no_text_is_refused(path: Path) -> None:
    path.write_bytes(b"1 \xff\xfe\x00")
    with pytest.raises(SecretFileError, match=rf"{path} is not text") as refusal:
        root_secret.load(path)
    assert refusal.value.__cause__ is None


def test_the_secret_is_not_shown(path: Path) -> None:
    assert OLD.hex() not in repr(load(path, f"1 {OLD.hex()}"))
    assert repr(OLD) not in repr(BOTH)


def test_derived_keys_have_nothing_in_common() -> None:
    keys = {
        (purpose, version): BOTH.derive(purpose, version) for purpose, version in itertools.product(Purpose, (1, 2))
    }
    assert len(set(keys.values())) == len(keys) == 2 * len(Purpose)
    assert not {OLD, NEW} & set(keys.values())
    same_secret = RootSecret(((2, OLD), (1, OLD)))
    assert same_secret.derive(Purpose.KEY_PEPPER, 1) != same_secret.derive(Purpose.KEY_PEPPER, 2)


def test_derived_keys_stay_what_they_are() -> None:
    """Stored hashes stand on them: a change of the derivation would lose every key."""
    assert BOTH.derive(Purpose.KEY_PEPPER, 1) == ONLY_OLD.derive(Purpose.KEY_PEPPER)
    assert BOTH.derive(Purpose.KEY_PEPPER) == ONLY_NEW.derive(Purpose.KEY_PEPPER)
    extracted = hmac.digest(bytes(32), OLD, hashlib.sha256)
    expanded = hmac.digest(extracted, b"lictor/1|key-pepper|1\x01", hashlib.sha256)
    assert ONLY_OLD.derive(Purpose.KEY_PEPPER) == expanded
    assert len(ONLY_OLD.derive(Purpose.REVISION, length_bytes=16)) == 16


def test_a_version_that_is_not_live_derives_nothing() -> None:
    with pytest.raises(KeyError):
        ONLY_NEW.derive(Purpose.REVISION, 1)


@given(st.text(min_size=1))
def test_a_hash_of_the_old_version_is_still_a_candidate(secret: str) -> None:
    before, during, after = (SecretHasher(root) for root in (ONLY_OLD, BOTH, ONLY_NEW))
    stored_before, stored_during = before.hash(secret), during.hash(secret)
    assert during.candidates(secret) == [stored_during, stored_before]
    assert after.candidates(secret) == [stored_during]
    assert stored_before != stored_during


@given(st.text(), st.text())
def test_a_hash_is_of_one_secret_under_one_version(one: str, other: str) -> None:
    hasher = SecretHasher(BOTH)
    assert (hasher.hash(one) == hasher.hash(other)) == (one == other)
    assert (hasher.hash(one)[0], len(hasher.hash(one))) == (2, 33)
    assert one.encode() not in hasher.hash(one) or len(one.encode()) < 4
