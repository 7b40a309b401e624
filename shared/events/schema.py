"""What a JSON object of an event may hold: fields with a kind, and a check that names every fault. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any, Final, cast


class Kind(Enum):
    """The kinds of values. The value is what the documentation calls it."""

    TEXT = "text"
    FLAG = "true or false"
    WHOLE = "whole number"
    SECONDS = "number of seconds"
    TIME = "time, RFC 3339 with its offset"
    TEXTS = "list of texts"
    LABELS = "object of texts"
    OBJECT = "object"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).utcoffset() is not None
    except ValueError:
        return False


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in cast("list[object]", value))


def _is_labels(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(item, str) for pair in cast("dict[object, object]", value).items() for item in pair
    )


_IS: Final[Mapping[Kind, Callable[[object], bool]]] = {
    Kind.TEXT: lambda value: isinstance(value, str),
    Kind.FLAG: lambda value: isinstance(value, bool),
    Kind.WHOLE: lambda value: isinstance(value, int) and not isinstance(value, bool),
    Kind.SECONDS: _is_number,
    Kind.TIME: _is_time,
    Kind.TEXTS: _is_texts,
    Kind.LABELS: _is_labels,
    Kind.OBJECT: lambda value: isinstance(value, dict),
}


@dataclass(frozen=True, slots=True)
class Field:
    """One member of an object; it is always there. `values` are all that a text can be; empty means any."""

    name: str
    kind: Kind
    means: str
    nullable: bool = False
    values: tuple[str, ...] = ()

    def takes(self, value: object) -> bool:
        if value is None:
            return self.nullable
        return _IS[self.kind](value) and (not self.values or value in self.values)


def or_null(field: Field) -> Field:
    """The same field where it can be absent."""
    return replace(field, nullable=True)


def faults(value: object, fields: Sequence[Field]) -> Iterator[str]:
    """What is wrong with an object, in words: nothing may be missing, be of another kind, or be more than is listed."""
    if not isinstance(value, Mapping):
        yield "is no object"
        return
    held = cast("Mapping[str, Any]", value)
    for field in fields:
        if field.name not in held:
            yield f"{field.name} is missing"
        elif not field.takes(held[field.name]):
            yield f"{field.name} is not a {field.kind.value}" + (
                f" of {', '.join(field.values)}" if field.values else ""
            )
    for name in held.keys() - {field.name for field in fields}:
        yield f"{name} is not in the schema"
