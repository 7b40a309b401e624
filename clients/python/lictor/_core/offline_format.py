"""The form of license and machine files, for who writes them and who reads them.

    -----BEGIN LICENSE FILE-----
    base64, 64 characters a line, of the JSON {"alg", "enc", "kid", "sig", "v"}
    -----END LICENSE FILE-----

`enc` is base64 of the payload's JSON; or, encrypted, `ciphertext.nonce.tag.salt`, each in base64. What is signed is
`license/` or `machine/` and `enc`. There is one way to write a file: a reader refuses every other.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, cast

from .offline_errors import FileMalformed, FileNotDecrypted

VERSION: Final = 1
PLAIN: Final = "base64+ed25519"
ENCRYPTED: Final = "aes-256-gcm+ed25519"
ISSUER: Final = "license-server"
MAX_CHARS: Final = 64 * 1024
LINE_CHARS: Final = 64
SIGNATURE_BYTES: Final = 64
_NONCE_BYTES, _TAG_BYTES, _SALT_BYTES, _KEY_BYTES = 12, 16, 16, 32
_FIELDS: Final = ("alg", "enc", "kid", "sig", "v")
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_CANONICAL_KEY: Final = str.maketrans("OIL", "011")


class FileKind(Enum):
    """What a file is of. The value is what stands before `enc` in what is signed."""

    LICENSE = "license"
    MACHINE = "machine"

    @property
    def begin(self) -> str:
        return f"-----BEGIN {self.name} FILE-----"

    @property
    def end(self) -> str:
        return f"-----END {self.name} FILE-----"


@dataclass(frozen=True, slots=True)
class FileSecret:
    """What a file is encrypted with: the license key, and the fingerprint where the file is bound to one."""

    license_key: str
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class SignedFile:
    """A file taken apart, before anything in it is believed."""

    kind: FileKind
    alg: str
    enc: str
    kid: str
    sig: bytes

    @property
    def signed(self) -> bytes:
        """What the signature is of."""
        return signing_input(self.kind, self.enc)


def signing_input(kind: FileKind, enc: str) -> bytes:
    """What is signed."""
    return f"{kind.value}/{enc}".encode()


def moment(at: datetime) -> str:
    """A time as payloads have it: RFC 3339 in UTC, always with microseconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


def moment_from(text: object) -> datetime:
    """The time. FileMalformed."""
    if isinstance(text, str) and _MOMENT.fullmatch(text):
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass
    raise FileMalformed("a time in the file is not one")


def write_file(
    kind: FileKind,
    payload: Mapping[str, Any],
    *,
    kid: str,
    sign: Callable[[bytes], bytes],
    secret: FileSecret | None = None,
    random: Callable[[int], bytes] = os.urandom,
) -> str:
    """A file.

    Args:
        kind: What it is of.
        payload: What it says; numbers in it are whole.
        kid: The key that signs, as key sets name it.
        sign: Signs with Ed25519.
        secret: What it is encrypted with; None for plain.
        random: Where random bytes are from.
    """
    body = _json(payload)
    if secret is None:
        alg, enc = PLAIN, _b64(body)
    else:
        alg, enc = ENCRYPTED, _encrypt(kind, kid, body, secret, random)
    sig = _b64(sign(signing_input(kind, enc)))
    text = _b64(_json({"alg": alg, "enc": enc, "kid": kid, "sig": sig, "v": VERSION}))
    lines = [text[start : start + LINE_CHARS] for start in range(0, len(text), LINE_CHARS)]
    return "\n".join((kind.begin, *lines, kind.end, ""))


def read_file(text: str | bytes) -> SignedFile:
    """Takes a file apart. Blanks around it and the line ends of other systems are let pass. FileMalformed."""
    if len(text) > MAX_CHARS:
        raise FileMalformed(f"the file has more than {MAX_CHARS} characters")
    try:
        written = text.decode("ascii") if isinstance(text, bytes) else text
    except UnicodeDecodeError:
        raise FileMalformed("the file is not text") from None
    lines = written.strip(" \t\r\n").replace("\r\n", "\n").split("\n")
    kind = next((kind for kind in FileKind if kind.begin == lines[0]), None)
    if kind is None or lines[-1] != kind.end or len(lines) < 3:
        raise FileMalformed("the file does not begin and end as a license or machine file does")
    body = lines[1:-1]
    if any(len(line) != LINE_CHARS for line in body[:-1]) or not 1 <= len(body[-1]) <= LINE_CHARS:
        raise FileMalformed("a line of the file is cut off")
    raw = _unb64("".join(body))
    outer = _object(raw)
    if tuple(sorted(outer)) != _FIELDS or _json(outer) != raw:
        raise FileMalformed("the file is not written as files are")
    if type(outer["v"]) is not int or outer["v"] != VERSION:
        raise FileMalformed("the file is of a version that this client does not know")
    alg, enc, kid, sig = (_text(outer[name]) for name in ("alg", "enc", "kid", "sig"))
    if alg not in {PLAIN, ENCRYPTED}:
        raise FileMalformed("the file is signed or encrypted in a way that this client does not know")
    signature = _unb64(sig)
    if len(signature) != SIGNATURE_BYTES:
        raise FileMalformed("the signature has not its length")
    return SignedFile(kind, alg, enc, kid, signature)


def payload_of(file: SignedFile, secret: FileSecret | None) -> dict[str, Any]:
    """What a file says; ask after its signature was verified. FileMalformed, FileNotDecrypted.

    `secret` is needed where the file is encrypted.
    """
    if file.alg == PLAIN:
        raw = _unb64(file.enc)
    else:
        assert secret is not None, "the caller asks for the license key"
        raw = _decrypt(file, secret)
    return _object(raw)


def fingerprint_mark(fingerprint: str, salt: bytes | None = None) -> dict[str, str]:
    """What a payload says of the fingerprint that its file is bound to: nothing that others' files could be compared by."""
    salt = os.urandom(_SALT_BYTES) if salt is None else salt
    return {"hmac": _b64(hmac.digest(salt, fingerprint.encode(), "sha256")), "salt": _b64(salt)}


def fits_mark(fingerprint: str, mark: Mapping[str, Any]) -> bool:
    """Whether a fingerprint is the one that the mark was made of. FileMalformed."""
    found, salt = _text(mark.get("hmac")), _unb64(_text(mark.get("salt")))
    return hmac.compare_digest(fingerprint_mark(fingerprint, salt)["hmac"], found)


def file_key(kind: FileKind, secret: FileSecret, salt: bytes) -> bytes:
    """The AES key: HKDF-SHA-256 over the license key and the fingerprint, each with its length before it.

    The license key counts as the service reads it: upper case, O as 0, I and L as 1, no blanks around it."""
    canonical = secret.license_key.strip().upper().translate(_CANONICAL_KEY)
    parts = [part.encode() for part in (canonical, secret.fingerprint)]
    material = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    # RFC 5869, for one block of output.
    extracted = hmac.digest(salt, material, "sha256")
    return hmac.digest(extracted, f"lictor/1|{kind.value} file".encode() + b"\x01", hashlib.sha256)[:_KEY_BYTES]


def _encrypt(kind: FileKind, kid: str, body: bytes, secret: FileSecret, random: Callable[[int], bytes]) -> str:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - an extra of the client

    salt, nonce = random(_SALT_BYTES), random(_NONCE_BYTES)
    sealed = AESGCM(file_key(kind, secret, salt)).encrypt(nonce, body, _bound_to(kind, kid))
    return ".".join(_b64(part) for part in (sealed[:-_TAG_BYTES], nonce, sealed[-_TAG_BYTES:], salt))


def _decrypt(file: SignedFile, secret: FileSecret) -> bytes:
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - an extra of the client
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

    parts = [_unb64(part) for part in file.enc.split(".")]
    if [len(part) for part in parts[1:]] != [_NONCE_BYTES, _TAG_BYTES, _SALT_BYTES]:
        raise FileMalformed("what is encrypted has not its parts")
    sealed, nonce, tag, salt = parts
    try:
        return AESGCM(file_key(file.kind, secret, salt)).decrypt(nonce, sealed + tag, _bound_to(file.kind, file.kid))
    except InvalidTag:
        raise FileNotDecrypted("the license key or the fingerprint is not the one of the file") from None


def _bound_to(kind: FileKind, kid: str) -> bytes:
    return f"lictor/1|{kind.value} file|{ENCRYPTED}|{kid}".encode()


def _json(value: Mapping[str, Any]) -> bytes:
    """The one way to write JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _object(raw: bytes) -> dict[str, Any]:
    try:
        found: object = json.loads(raw)
    except (ValueError, RecursionError):
        raise FileMalformed("what is in the file is not JSON") from None
    if not isinstance(found, dict):
        raise FileMalformed("what is in the file is no JSON object")
    return cast("dict[str, Any]", found)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise FileMalformed("a field of the file is no text")
    return value


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _unb64(text: str) -> bytes:
    """Bytes have one base64: another one, that decodes to the same, is refused."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FileMalformed("a part of the file is not base64") from None
    if _b64(raw) != text:
        raise FileMalformed("a part of the file is not written as files are")
    return raw
