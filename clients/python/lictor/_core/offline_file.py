"""Verifies license and machine files offline: with the published keys, and what was seen before."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias, cast

from lictor.license.v1.token_service_pb2 import GetJsonWebKeySetResponse

from . import offline_errors as errors
from .offline_format import (
    ENCRYPTED,
    FileKind,
    FileSecret,
    SignedFile,
    fits_mark,
    moment_from,
    payload_of,
    read_file,
)
from .offline_state import Memory, Seen, StateLike, store_of

CLOCK_TOLERANCE: Final = timedelta(minutes=5)
"""By how much clocks may differ from the service's, and step back."""

KeySetLike: TypeAlias = "str | bytes | Mapping[str, Any] | GetJsonWebKeySetResponse"


@dataclass(frozen=True, slots=True)
class VerifiedFile:
    """What a file that was verified says. `payload` is all of it."""

    kind: str
    file_id: str
    product: str
    mode: str
    license_id: str
    product_id: str
    policy_id: str
    customer_id: str | None
    machine_id: str | None
    tier: str | None
    features: tuple[str, ...]
    license_expires_at: datetime | None
    seq: int
    revocation_epoch: int
    server_time: datetime
    not_before: datetime
    expires_at: datetime
    payload: Mapping[str, Any]


def verify_license_file(
    text: str | bytes,
    *,
    keys: KeySetLike,
    state: StateLike | None,
    license_key: str | None = None,
    fingerprint: str | None = None,
    product: str | None = None,
    now: datetime | None = None,
    clock_tolerance: timedelta = CLOCK_TOLERANCE,
) -> VerifiedFile:
    """Verifies a license file without any call, or raises the `LicenseFileError` that says why it gives no right.

    Args:
        text: The file.
        keys: The product's key set: JSON as published, or the answer of `client.signing_keys.public(key_set_id)`.
        state: Where is remembered what was seen, so that an older file, or a clock that was set back, is noticed: a path, or
            an object with `load` and `save`. None remembers nothing, and notices neither.
        license_key: Needed where the file is encrypted.
        fingerprint: Of this machine; needed where the file is bound to one.
        product: The product's slug, where it is to be compared too.
        now: The time to verify at, with a timezone; by default the clock's.
        clock_tolerance: By how much the clock may be behind.
    """
    asked = _Asked(FileKind.LICENSE, license_key, fingerprint, product, now or datetime.now(UTC), clock_tolerance)
    return _verify(text, keys, state, asked)


def verify_machine_file(
    text: str | bytes,
    *,
    keys: KeySetLike,
    state: StateLike | None,
    fingerprint: str,
    license_key: str | None = None,
    product: str | None = None,
    now: datetime | None = None,
    clock_tolerance: timedelta = CLOCK_TOLERANCE,
) -> VerifiedFile:
    """The same for a machine file, which is always bound to a fingerprint."""
    asked = _Asked(FileKind.MACHINE, license_key, fingerprint, product, now or datetime.now(UTC), clock_tolerance)
    return _verify(text, keys, state, asked)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a file must be."""

    kind: FileKind
    license_key: str | None
    fingerprint: str | None
    product: str | None
    now: datetime
    tolerance: timedelta

    def __post_init__(self) -> None:
        if self.now.utcoffset() is None:
            raise ValueError("now has no timezone: which moment it is depends on where it is read")


def _verify(text: str | bytes, keys: KeySetLike, state: StateLike | None, asked: _Asked) -> VerifiedFile:
    file = read_file(text)
    if file.kind is not asked.kind:
        raise errors.FileOfOtherKind(f"a {asked.kind.value} file is wanted, and this is a {file.kind.value} file")
    _verify_signature(file, _public_keys(keys))
    if file.alg == ENCRYPTED and not asked.license_key:
        raise errors.FileEncrypted("the file is encrypted: give the license key")
    found = _read_payload(file.kind, _opened(file, asked))
    if asked.product is not None and asked.product != found.product:
        raise errors.FileOfOtherProduct(f"the file is for the product {found.product}")
    _refuse_other_machine(found, asked.fingerprint)
    store = store_of(state)
    memory = Memory.load(store)
    _refuse_by_time(found, memory, asked)
    memory.save(store)
    if asked.now >= found.expires_at:
        raise errors.FileExpired(f"the file expired at {found.expires_at.isoformat()}")
    return found


def _opened(file: SignedFile, asked: _Asked) -> Mapping[str, Any]:
    """An encrypted file does not say before whether a fingerprint is in its key too."""
    license_key, fingerprint = asked.license_key or "", asked.fingerprint or ""
    if fingerprint:
        with suppress(errors.FileNotDecrypted):
            return payload_of(file, FileSecret(license_key, fingerprint))
    return payload_of(file, FileSecret(license_key))


def _public_keys(keys: KeySetLike) -> dict[str, bytes]:
    """The keys by their ids. What is no Ed25519 key of ours is left out, as RFC 7517 wants it. ValueError for no key set."""
    if isinstance(keys, GetJsonWebKeySetResponse):
        return {key.kid: _bytes_of(key.x) for key in keys.keys if key.crv == "Ed25519"}
    given: object = json.loads(keys) if isinstance(keys, str | bytes) else keys
    listed: object = cast("Mapping[str, Any]", given).get("keys") if isinstance(given, Mapping) else None
    if not isinstance(listed, list):
        raise ValueError('keys is no JWK Set: it has no list "keys"')
    found: dict[str, bytes] = {}
    for key in cast("Iterable[Any]", listed):
        if isinstance(key, Mapping):
            one = cast("Mapping[str, Any]", key)
            if (one.get("kty"), one.get("crv")) == ("OKP", "Ed25519") and isinstance(one.get("kid"), str):
                found[one["kid"]] = _bytes_of(str(one.get("x")))
    return found


def _bytes_of(x: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(x + "=" * (-len(x) % 4))
    except (binascii.Error, ValueError):
        return b""


def _verify_signature(file: SignedFile, keys: Mapping[str, bytes]) -> None:
    try:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - an extra of the client
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415
    except ImportError as missing:
        raise ImportError("license files need cryptography: pip install 'lictor[offline]'") from missing
    key = keys.get(file.kid)
    if key is None:
        raise errors.FileKeyUnknown(f"the key set has no key {file.kid!r}")
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(file.sig, file.signed)
    except (InvalidSignature, ValueError):
        raise errors.FileSignatureInvalid("what is in the file is not what was signed") from None


def _read_payload(kind: FileKind, payload: Mapping[str, Any]) -> VerifiedFile:
    """What was signed is believed, and still read with care: the service may be newer than this client."""
    try:
        license_: Mapping[str, Any] = payload["license"]
        machine: Mapping[str, Any] | None = payload["machine"]
        tier: Mapping[str, Any] | None = license_["tier"]
        ends: str | None = license_["expires_at"]
        if payload["kind"] != kind.name:
            raise errors.FileMalformed("the file says that it is of another kind")
        return VerifiedFile(
            kind=kind.name,
            file_id=str(payload["file_id"]),
            product=str(payload["aud"]),
            mode=str(payload["mode"]),
            license_id=str(license_["license_id"]),
            product_id=str(license_["product_id"]),
            policy_id=str(license_["policy_id"]),
            customer_id=license_["customer_id"],
            machine_id=None if machine is None else str(machine["machine_id"]),
            tier=None if tier is None else str(tier["slug"]),
            features=tuple(str(feature) for feature in payload["features"]),
            license_expires_at=None if ends is None else moment_from(ends),
            seq=int(payload["seq"]),
            revocation_epoch=int(payload["revocation_epoch"]),
            server_time=moment_from(payload["server_time"]),
            not_before=moment_from(payload["not_before"]),
            expires_at=moment_from(payload["expires_at"]),
            payload=payload,
        )
    except (KeyError, TypeError, ValueError):
        raise errors.FileMalformed("the file does not say all that a file says") from None


def _refuse_other_machine(found: VerifiedFile, fingerprint: str | None) -> None:
    mark: object = found.payload.get("fingerprint")
    if mark is None and found.kind == FileKind.LICENSE.name:
        return
    if not isinstance(mark, Mapping):
        raise errors.FileMalformed("the file does not say which machine it is for")
    if not fingerprint:
        raise errors.FileOfOtherMachine("the file is bound to a machine: give its fingerprint")
    if not fits_mark(fingerprint, cast("Mapping[str, Any]", mark)):
        raise errors.FileOfOtherMachine("the file is for a machine with another fingerprint")


def _refuse_by_time(found: VerifiedFile, memory: Memory, asked: _Asked) -> None:
    """Refuses what is older than what was seen, and what a clock says that cannot be right; then remembers the file."""
    name = f"{found.kind}/{found.machine_id or found.license_id}"
    seen, epoch = memory.files.get(name), memory.epochs.get(found.product_id, 0)
    if found.revocation_epoch < epoch:
        raise errors.FileRolledBack("the file is from before a signing key of the product was revoked")
    if seen is not None and (found.seq < seen.seq or found.server_time < seen.server_time):
        raise errors.FileRolledBack(f"the file with the number {seen.seq} was seen already, and this is {found.seq}")
    if asked.now < found.server_time - asked.tolerance:
        raise errors.ClockSetBack("by the clock the file is not signed yet")
    # A newer file is proof of a time by itself: a clock that was ahead once does not refuse it.
    last = seen.clock if seen is not None and seen.seq == found.seq else None
    if last is not None and asked.now < last - asked.tolerance:
        raise errors.ClockSetBack(f"the file was verified at {last.isoformat()} already, which is later")
    if asked.now < found.not_before - asked.tolerance:
        raise errors.FileNotYetValid(f"the file is valid from {found.not_before.isoformat()} on")
    # Not beyond the end: a clock that is years ahead for once would be remembered as long.
    clock = min(asked.now, found.expires_at)
    memory.files[name] = Seen(found.seq, found.server_time, clock if last is None else max(clock, last))
    memory.epochs[found.product_id] = max(epoch, found.revocation_epoch)
