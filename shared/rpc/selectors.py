"""The constraints of what names a license or a machine: the same wherever one is named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from lictor.common.v1.common_pb2 import LicenseSelector, MachineIdentity

from shared.errors import FieldViolation
from shared.rpc import fields as f
from shared.rules.fingerprints import check_fingerprint, check_set

_ID_CHARS: Final = 64


def one_selector(message: Any) -> Iterator[FieldViolation]:
    selector: LicenseSelector = message.license
    match selector.WhichOneof("selector"):
        case None:
            yield FieldViolation("license", "EXACTLY_ONE", "set license.license_key or license.license_id")
        case "license_key":
            if not 1 <= len(selector.license_key) <= f.MAX_TEXT_CHARS:
                yield FieldViolation("license.license_key", "LENGTH_OUT_OF_RANGE", "must be 1 to 255 characters")
        case "license_id":
            if not 1 <= len(selector.license_id) <= _ID_CHARS:
                yield FieldViolation(
                    "license.license_id", "LENGTH_OUT_OF_RANGE", f"must be 1 to {_ID_CHARS} characters"
                )


def one_identity(field: str, *, needed: bool) -> f.Check:
    """A machine, named in one way; absent is refused where it is `needed`."""

    def run(message: Any) -> Iterator[FieldViolation]:
        if not message.HasField(field):
            if needed:
                yield FieldViolation(field, "REQUIRED", "is required")
            return
        identity: MachineIdentity = getattr(message, field)
        match identity.WhichOneof("identity"):
            case None:
                words = f"set {field}.fingerprint, {field}.fingerprints or {field}.workload"
                yield FieldViolation(field, "EXACTLY_ONE", words)
            case "fingerprint":
                yield from check_fingerprint(identity.fingerprint, f"{field}.fingerprint")
            case "fingerprints":
                named = [(one.name, one.fingerprint) for one in identity.fingerprints.fingerprints]
                yield from check_set(named, f"{field}.fingerprints.fingerprints")
            case "workload":
                pass

    return run


def parts(field: str) -> f.Check:
    """The parts of a machine, each with a name; none is allowed."""

    def run(message: Any) -> Iterator[FieldViolation]:
        named = [(one.name, one.fingerprint) for one in getattr(message, field)]
        if named:
            yield from check_set(named, field)

    return run
