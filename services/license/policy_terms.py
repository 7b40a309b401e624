"""Terms from protobuf and to it, by the names that the contract and the model share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any, Final, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from lictor.license.v1 import catalog_service_pb2 as pb

from services.license.terms import GENERAL, WORDS, PolicyLimit, Terms

TERM_NAMES: Final = frozenset(field.name for field in fields(Terms))
"""The terms, by name."""


def chosen(request: Message, template: Terms) -> Terms:
    """The terms that a request sets, over those of its template."""
    given = {name: value for name in TERM_NAMES if (value := _given(request, name)) is not None}
    return replace(template, **given)


def changed(request: Message, names: Iterable[str], before: Terms) -> Terms:
    """The terms of before with the named ones as the request has them; what it leaves out is as it generally is."""
    values = ((name, _given(request, name)) for name in names)
    return replace(before, **{name: getattr(GENERAL, name) if value is None else value for name, value in values})


def _given(request: Message, name: str) -> Any:
    """The term as the model has it; None where the request does not set it."""
    field = cast("FieldDescriptor", request.DESCRIPTOR.fields_by_name[name])
    value = getattr(request, name)
    if field.enum_type is not None:
        words = field.enum_type.values_by_number
        if field.is_repeated:
            return tuple(PolicyLimit(words[number].name) for number in value) or None
        return WORDS[name](words[value].name) if value else None
    if not request.HasField(name):
        return None
    return value.ToTimedelta() if isinstance(value, Duration) else value


def write(terms: Terms, policy: pb.Policy) -> None:
    """Sets the terms in a policy's message; what is None stays absent."""
    for name in TERM_NAMES:
        value = getattr(terms, name)
        field = policy.DESCRIPTOR.fields_by_name[name]
        if value is None:
            continue
        if field.enum_type is not None:
            numbers = field.enum_type.values_by_name
            if field.is_repeated:
                getattr(policy, name).extend(numbers[word].number for word in value)
            else:
                setattr(policy, name, numbers[value].number)
        elif field.message_type is not None:
            getattr(policy, name).FromTimedelta(value)
        else:
            setattr(policy, name, value)
