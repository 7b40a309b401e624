"""Python values to the contract's. Bad values raise ValueError or TypeError here, before anything is sent."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from lictor.common.v1.common_pb2 import FingerprintSet, LicenseSelector, MachineIdentity, NamedFingerprint

from .fingerprint import Fingerprint

if TYPE_CHECKING:
    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper as EnumType  # pyright: ignore[reportPrivateUsage]

JsonValue: TypeAlias = "bool | float | str | Mapping[str, JsonValue] | Sequence[JsonValue] | None"
MachineLike: TypeAlias = str | Mapping[str, str] | Fingerprint
"""A machine: one fingerprint, several by name, or what `fingerprint()` made, which are its components."""
EnumT = TypeVar("EnumT", bound=int)
T = TypeVar("T")
D = TypeVar("D")


class Unset(Enum):
    """The type of UNSET."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET
"""In an update: leave this field as it is. `None` clears it."""


def given(value: T | Unset, default: D) -> T | D:
    """`value`, or `default` where the caller said nothing."""
    return default if isinstance(value, Unset) else value


def mask(**fields: object) -> FieldMask:
    """Names the fields that the caller set, cleared ones included. None at all is a mistake."""
    paths = [name for name, value in fields.items() if value is not UNSET]
    if not paths:
        raise ValueError("nothing to update: give at least one of " + ", ".join(fields))
    return FieldMask(paths=paths)


def fresh(request_id: str | None) -> str:
    """The caller's `request_id`, or a new one."""
    return str(uuid.uuid4()) if request_id is None else request_id


def several(names: Iterable[str]) -> Iterable[str]:
    """Names, and not one string, whose letters would be taken for names."""
    if isinstance(names, str):
        raise TypeError(f"a list of names is wanted, not the one string {names!r}")
    return names


def timestamp(value: datetime | None) -> Timestamp | None:
    if value is None:
        return None
    if value.utcoffset() is None:
        raise ValueError(f"{value.isoformat()} has no timezone: which moment it is depends on where it is read")
    moment = Timestamp()
    moment.FromDatetime(value)
    return moment


def duration(value: timedelta | None) -> Duration | None:
    if value is None:
        return None
    length = Duration()
    length.FromTimedelta(value)
    return length


def moment_of(value: Timestamp) -> datetime:
    return value.ToDatetime(tzinfo=UTC)


def struct(value: Mapping[str, JsonValue] | None) -> Struct | None:
    """A JSON object. Its numbers are doubles, so an integer beyond 2**53 is refused and not rounded."""
    if value is None:
        return None
    _check_json(value)
    made = Struct()
    made.update(value)
    return made


def _check_json(value: object) -> None:
    match value:
        case bool() | str() | None:
            return
        case int() if abs(value) > 2**53:
            raise ValueError(f"metadata holds {value}, which a JSON number cannot hold exactly: use a string")
        case int() | float():
            return
        case Mapping():
            for key, item in value.items():  # pyright: ignore[reportUnknownVariableType]
                if not isinstance(key, str):
                    raise TypeError("metadata keys must be strings")
                _check_json(item)  # pyright: ignore[reportUnknownArgumentType]
        case list() | tuple():
            for item in value:  # pyright: ignore[reportUnknownVariableType]
                _check_json(item)  # pyright: ignore[reportUnknownArgumentType]
        case _:
            raise TypeError(f"metadata holds a {type(value).__name__}, which JSON has not")


def enum_value(kind: EnumType[EnumT], value: str | EnumT | None) -> EnumT:
    """An enum's number from its name, from the number itself, or unspecified."""
    if value is None:
        return kind.values()[0]
    if not isinstance(value, str):
        return value
    if value not in kind.keys()[1:]:
        raise ValueError(f"{value!r} is none of " + ", ".join(kind.keys()[1:]))
    return kind.Value(value)


def enum_name(kind: EnumType[EnumT], number: EnumT) -> str:
    """An enum's name; a number newer than this client reads `UNKNOWN_320`."""
    return kind.Name(number) if number in kind.values() else f"UNKNOWN_{number}"


def machine_identity(machine: MachineLike) -> MachineIdentity:
    """What names a machine. That of `fingerprint()` goes as its components, so that one of them may have changed."""
    if isinstance(machine, str):
        return MachineIdentity(fingerprint=machine)
    parts = machine.components if isinstance(machine, Fingerprint) else machine
    named = [NamedFingerprint(name=name, fingerprint=value) for name, value in parts.items()]
    return MachineIdentity(fingerprints=FingerprintSet(fingerprints=named))


def license_selector(key: str | None, license_id: str | None) -> LicenseSelector | None:
    """The license; None for the one of the client's own license key."""
    if key is not None and license_id is not None:
        raise ValueError("a license is named by its key or by its id, and not by both")
    if key is None and license_id is None:
        return None
    return LicenseSelector(license_key=key) if key is not None else LicenseSelector(license_id=license_id or "")
