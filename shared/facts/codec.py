"""Facts as bytes, for a store beside the record. What is read back was checked for forgery before it comes here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from shared.facts.credential_values import AccountValue, ApiKeyValue, BindingValue, OperatorKeyValue, SessionValue
from shared.facts.customers import CustomerValue
from shared.facts.license import KeyValue, LicenseValue, PolicyValue, ProductValue, TiersValue
from shared.facts.machines import ComponentsValue, FingerprintValue, Limits, MachineTerms, MachineValue, SeatsValue
from shared.facts.signing_keys import KeySetValue, SigningKeysValue
from shared.freshness.memory import Fact
from shared.freshness.snapshot import Snapshot, Stamp

FORMAT: Final = 4
"""Of a change of any value's fields: entries of another format are as good as none."""
CLASSES: Final[Mapping[str, type[Any]]] = {
    "account": AccountValue, "api_key": ApiKeyValue, "component": ComponentsValue, "customer": CustomerValue,
    "customer_session": SessionValue, "fingerprint": FingerprintValue, "key_set": KeySetValue, "license": LicenseValue,
    "license_key": KeyValue, "machine": MachineValue, "operator_key": OperatorKeyValue, "policy": PolicyValue,
    "product": ProductValue, "seats": SeatsValue, "signing_keys": SigningKeysValue, "tier": TiersValue,
    "workload": BindingValue,
}  # fmt: skip
_COLUMNS: Final = {kind: tuple(one.name for one in fields(of) if one.init) for kind, of in CLASSES.items()}
_PARTS: Final[Mapping[type[Any], tuple[str, Sequence[str]]]] = {
    of: (name, tuple(one.name for one in fields(of))) for of, name in ((Limits, "@limits"), (MachineTerms, "@machines"))
}
"""What values are made of that are no words, numbers or times: under which name, and of which columns."""
_OF_MANY: Final = (b'["policy:', b'["product:', b'["tier:')
"""How the rows of facts begin that many licenses share: these stand in nearly every entry, and are read once."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)


def encode(stamp: Stamp, facts: Iterable[Fact]) -> bytes:
    """The facts of one load."""
    lines = [_line([FORMAT, stamp.system_id, stamp.epoch.hex, str(stamp.snapshot)])]
    for fact in facts:
        columns = _COLUMNS[_kind(fact.key)]
        values = None if fact.value is None else [getattr(fact.value, name) for name in columns]
        lines.append(_line([fact.key, fact.size_bytes, values]))
    return b"\n".join(lines)


def decode(body: bytes) -> tuple[Stamp, Sequence[Fact]] | None:
    """What `encode` was given; None for bytes of another format."""
    head, *rows = body.split(b"\n")
    version, *state = _DECODER.decode(head.decode())
    if version != FORMAT:
        return None
    system_id, epoch, snapshot = state
    facts = [_fact_of_many(row) if row.startswith(_OF_MANY) else _fact(row) for row in rows]
    return Stamp(system_id, _epoch(epoch), Snapshot.parse(snapshot)), facts


def _line(values: Sequence[object]) -> bytes:
    """Without a line break: JSON has none inside its strings."""
    return json.dumps(values, default=_as_json, separators=(",", ":")).encode()


def _kind(key: str) -> str:
    return key.partition(":")[0]


def _fact(row: bytes) -> Fact:
    key, size_bytes, values = _DECODER.decode(row.decode())
    return Fact(key, None if values is None else CLASSES[_kind(key)](*values), size_bytes)


_fact_of_many: Final = lru_cache(maxsize=1024)(_fact)


def _as_json(value: object) -> object:
    match value:
        case datetime():
            return {"@at": (value - _EPOCH) // _US}
        case timedelta():
            return {"@for": value // _US}
        case bytes():
            return {"@hex": value.hex()}
        case Limits() | MachineTerms():
            name, columns = _PARTS[type(value)]
            return {name: [getattr(value, column) for column in columns]}
        case _:
            raise TypeError(f"no fact has a {type(value).__name__}")


def _from_json(value: dict[str, Any]) -> object:
    match value:
        case {"@at": int(at), **rest} if not rest:
            return _EPOCH + at * _US
        case {"@for": int(span), **rest} if not rest:
            return span * _US
        case {"@hex": str(text), **rest} if not rest:
            return bytes.fromhex(text)
        case {"@limits": columns, **rest} if not rest:
            return Limits(*columns)
        case {"@machines": columns, **rest} if not rest:
            return MachineTerms(*columns)
        case _:
            return value


_DECODER: Final = json.JSONDecoder(object_hook=_from_json)
"""Made once: `json.loads` makes one for each row, and looks for its encoding."""


@lru_cache(maxsize=4)
def _epoch(digits: str) -> UUID:
    """Nearly all entries are of the same."""
    return UUID(hex=digits)
