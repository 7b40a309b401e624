"""The form of license and machine files: every bit counts, one way to write each, and nothing but openssl to check one."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st
from lictor import LicenseFileError, verify_license_file, verify_machine_file
from lictor._core import offline_errors as errors
from lictor._core.offline_format import (
    ENCRYPTED,
    FileKind,
    FileSecret,
    file_key,
    fingerprint_mark,
    fits_mark,
    payload_of,
    read_file,
)

from shared.rules.license_keys import canonical
from tests.contract.reading import ROOT
from tests.helpers.offline import FINGERPRINT, ISSUED, KEYS, LICENSE_KEY, jwk, payload, written

GOLDEN = Path(__file__).parent / "golden"
SECRET = FileSecret(LICENSE_KEY, FINGERPRINT)
WRITTEN: dict[str, Callable[[], str]] = {
    "license": written,
    "license-encrypted": lambda: written(secret=FileSecret(LICENSE_KEY)),
    "machine": lambda: written(kind=FileKind.MACHINE),
    "machine-encrypted": lambda: written(kind=FileKind.MACHINE, secret=SECRET),
}


def verified(text: str | bytes, name: str, keys: str = KEYS) -> dict[str, Any]:
    if name.startswith("machine"):
        found = verify_machine_file(
            text, keys=keys, state=None, fingerprint=FINGERPRINT, license_key=LICENSE_KEY, now=ISSUED
        )
    else:
        found = verify_license_file(text, keys=keys, state=None, license_key=LICENSE_KEY, now=ISSUED)
    return dict(found.payload)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_golden_file_is_written_and_read_as_ever(name: str) -> None:
    """Files that are out there stay readable: who changes the format changes its version."""
    golden = (GOLDEN / f"{name}.lic").read_text()
    assert WRITTEN[name]() == golden
    kind = FileKind.MACHINE if name.startswith("machine") else FileKind.LICENSE
    assert verified(golden, name) == payload(kind)
    assert max(map(len, golden.splitlines())) == 64


@pytest.mark.parametrize("name", WRITTEN)
def test_a_file_with_any_one_bit_flipped_is_refused(name: str) -> None:
    good = WRITTEN[name]().encode()
    assert verified(good, name)
    accepted: list[int] = []
    reasons: set[str] = set()
    for bit in range(len(good) * 8):
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            verified(bytes(flipped), name)
        except LicenseFileError as refused:
            reasons.add(refused.reason)
        else:
            accepted.append(bit)
    assert accepted == []
    assert reasons == {"MALFORMED", "KEY_UNKNOWN", "SIGNATURE_INVALID"}


@pytest.mark.parametrize("name", WRITTEN)
def test_every_part_of_a_file_that_is_cut_off_is_refused(name: str) -> None:
    good = WRITTEN[name]()
    whole = len(good.rstrip())
    for end in range(whole):
        with pytest.raises(LicenseFileError):
            verified(good[:end], name)


@settings(deadline=None, max_examples=300)
@given(st.one_of(st.binary(max_size=300), st.text(max_size=300)))
def test_what_is_no_file_is_refused_with_a_word(noise: str | bytes) -> None:
    with pytest.raises(LicenseFileError):
        verified(noise, "license")


@pytest.mark.parametrize("around", ["{}\n\n", " \t{}", "\r\n{}\r\n", "{}"])
def test_what_mail_and_editors_do_around_a_file_is_let_pass(around: str) -> None:
    good = written()
    assert verified(around.format(good), "license") == payload()
    assert verified(good.replace("\n", "\r\n"), "license") == payload()
    assert verified(good.rstrip("\n"), "license") == payload()


def outer_of(text: str) -> dict[str, Any]:
    return json.loads(base64.b64decode("".join(text.splitlines()[1:-1])))


def rewritten(outer: dict[str, Any], separators: tuple[str, str] = (",", ":")) -> str:
    raw = base64.b64encode(json.dumps(outer, sort_keys=True, separators=separators).encode()).decode()
    lines = [raw[n : n + 64] for n in range(0, len(raw), 64)]
    return "\n".join(("-----BEGIN LICENSE FILE-----", *lines, "-----END LICENSE FILE-----", ""))


def test_there_is_one_way_to_write_a_file() -> None:
    outer = outer_of(written())
    assert verified(rewritten(outer), "license")
    others: list[str] = [
        rewritten(outer, separators=(", ", ":")),
        rewritten({**outer, "more": 1}),
        rewritten({name: value for name, value in outer.items() if name != "v"}),
        rewritten({**outer, "v": True}),
        rewritten({**outer, "v": 1.0}),
        rewritten({**outer, "v": 2}),
        rewritten({**outer, "v": "1"}),
        rewritten({**outer, "alg": "none"}),
        rewritten({**outer, "alg": ENCRYPTED}),
        rewritten({**outer, "kid": None}),
        rewritten({**outer, "sig": outer["sig"][:-4]}),
        rewritten({**outer, "sig": ""}),
        rewritten({**outer, "enc": outer["enc"] + "\n"}),
    ]
    for other in others:
        with pytest.raises(LicenseFileError):
            verified(other, "license")
    # A last character with other bits that no byte is made of.
    body = written().splitlines()[1:-1]
    last = next((line for line in body if line.endswith("=")), None)
    if last is not None:
        place = len(last.rstrip("=")) - 1
        altered = last[:place] + chr(ord(last[place]) + 1) + last[place + 1 :]
        with pytest.raises(errors.FileMalformed):
            read_file(written().replace(last, altered))


def test_a_signature_is_of_one_kind_of_file_only() -> None:
    for kind, other in ((FileKind.LICENSE, FileKind.MACHINE), (FileKind.MACHINE, FileKind.LICENSE)):
        as_other = written(payload(kind), kind).replace(f"{kind.name} FILE", f"{other.name} FILE")
        with pytest.raises(errors.FileSignatureInvalid):
            verified(as_other, other.value)
        with pytest.raises(errors.FileOfOtherKind):
            verified(written(kind=kind), other.value)
        with pytest.raises(errors.FileMalformed, match="another kind"):
            verified(written(payload(kind), other), other.value)


def test_another_key_with_the_same_name_is_not_believed() -> None:
    forger = Ed25519PrivateKey.from_private_bytes(bytes(32))
    with pytest.raises(errors.FileSignatureInvalid):
        verified(written(private=forger), "license")
    with pytest.raises(errors.FileKeyUnknown):
        verified(written(private=forger, kid="kid_forger"), "license")
    both = json.dumps({"keys": [jwk(), jwk(forger, "kid_forger")]})
    assert verified(written(private=forger, kid="kid_forger"), "license", both)


@pytest.mark.parametrize("name", ["license", "machine"])
def test_nothing_of_an_encrypted_file_can_be_read(name: str) -> None:
    text = WRITTEN[f"{name}-encrypted"]()
    outer = outer_of(text)
    parts = [base64.b64decode(part) for part in outer["enc"].split(".")]
    assert [len(part) for part in parts[1:]] == [12, 16, 16]
    assert b"lic_1" not in b"".join(parts)
    assert "lic_1" in base64.b64decode(outer_of(WRITTEN[name]())["enc"]).decode()


def test_the_key_of_a_file_is_hkdf_over_both_secrets_with_their_lengths() -> None:
    assert (len(LICENSE_KEY), len(FINGERPRINT)) == (26, 33)
    material = b"\0\0\0\x1a" + canonical(LICENSE_KEY).encode() + b"\0\0\0\x21" + FINGERPRINT.encode()
    expected = HKDF(SHA256(), 32, salt=b"s" * 16, info=b"lictor/1|license file").derive(material)
    assert file_key(FileKind.LICENSE, SECRET, b"s" * 16) == expected
    assert file_key(FileKind.MACHINE, SECRET, b"s" * 16) != expected
    # Without the lengths these two would be one.
    assert file_key(FileKind.LICENSE, FileSecret("AB", "C"), b"s") != file_key(
        FileKind.LICENSE, FileSecret("A", "BC"), b"s"
    )


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60))
def test_a_license_key_counts_as_the_service_reads_it(key: str) -> None:
    as_typed = FileSecret(f" {key.lower()}\n")
    assert file_key(FileKind.LICENSE, as_typed, b"s") == file_key(FileKind.LICENSE, FileSecret(canonical(key)), b"s")


@pytest.mark.parametrize(
    "wrong",
    [FileSecret("PROAPP-AB12-CD34-EF56-GH79", FINGERPRINT), FileSecret(LICENSE_KEY), FileSecret("", FINGERPRINT)],
)
def test_what_was_encrypted_opens_with_its_secrets_alone(wrong: FileSecret) -> None:
    file = read_file(WRITTEN["machine-encrypted"]())
    assert payload_of(file, SECRET) == payload(FileKind.MACHINE)
    with pytest.raises(errors.FileNotDecrypted):
        payload_of(file, wrong)


def test_marks_of_one_fingerprint_are_not_alike() -> None:
    marks = [fingerprint_mark(FINGERPRINT) for _ in range(2)]
    assert marks[0] != marks[1]
    assert all(fits_mark(FINGERPRINT, mark) and not fits_mark("another", mark) for mark in marks)
    assert FINGERPRINT not in str(marks)


def test_openssl_alone_verifies_a_file_by_the_command_of_the_docs(tmp_path: Path) -> None:
    if shutil.which("openssl") is None or shutil.which("sh") is None:
        pytest.skip("NOT TESTED, the command of docs/offline.md: there is no openssl here")
    found = re.search(r"```sh\n(# Verify with openssl.*?)```", (ROOT / "docs" / "offline.md").read_text(), re.DOTALL)
    assert found is not None, "docs/offline.md has no such command"

    def run(text: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "app.lic").write_text(text)
        (tmp_path / "jwks.json").write_text(json.dumps({"keys": [jwk()]}))
        env = {"PATH": os.environ["PATH"]}
        return subprocess.run(
            ["sh", "-eu", "-c", found[1]],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    for name in ("license", "license-encrypted"):
        done = run(WRITTEN[name]())
        assert (done.returncode, done.stdout.strip()) == (0, "Signature Verified Successfully"), done
    outer = outer_of(written())
    tampered = payload() | {"seq": 8}
    enc = base64.b64encode(json.dumps(tampered, sort_keys=True, separators=(",", ":")).encode()).decode()
    refused = run(rewritten({**outer, "enc": enc}))
    assert refused.returncode != 0, refused
    assert "Signature Verified Successfully" not in refused.stdout
