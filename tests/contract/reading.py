"""The contract as the descriptor set carries it, comments included, in shapes that tests can walk."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

from google.api import annotations_pb2  # pyright: ignore[reportMissingTypeStubs]
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)
from lictor.common.v1 import options_pb2

ROOT: Final = Path(__file__).resolve().parent.parent.parent
_HTTP: Final = cast("Any", annotations_pb2).http
_MESSAGE, _ENUM, _SERVICE, _EXTENSION = 4, 5, 6, 7
_READS: Final = ("Get", "List", "Validate", "BatchValidate", "Explain", "WhoAmI", "Watch")


@dataclass(frozen=True, slots=True)
class Element:
    """Anything that must have a comment: its full name and what is said of it."""

    name: str
    comment: str


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message."""

    message: str
    name: str
    number: int
    comment: str
    textual: bool
    """Whether it is a string or bytes."""
    redacted: bool


@dataclass(frozen=True, slots=True)
class Message:
    """A message with its fields by name."""

    name: str
    fields: dict[str, Field]


@dataclass(frozen=True, slots=True)
class Rpc:
    """An RPC with its rules and its HTTP mapping; `verb` is empty where there is none."""

    name: str
    comment: str
    ruled: bool
    effect: options_pb2.Effect.Kind.ValueType
    scope: str
    idempotent: bool
    also_serves: frozenset[str]
    anonymous: bool
    internal: bool
    unary: bool
    request: Message
    response: Message
    verb: str
    pattern: str
    body: str

    @property
    def short(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def mutates(self) -> bool:
        return not self.short.startswith(_READS)

    @property
    def variables(self) -> list[str]:
        """The path variables."""
        return re.findall(r"\{([^}=]+)(?:=[^}]*)?\}", self.pattern)


@cache
def _files() -> tuple[FileDescriptorProto, ...]:
    raw = (ROOT / "clients" / "python" / "lictor" / "descriptors.binpb").read_bytes()
    return tuple(file for file in FileDescriptorSet.FromString(raw).file if file.package.startswith("lictor."))


def _comments(file: FileDescriptorProto) -> dict[tuple[int, ...], str]:
    return {tuple(place.path): " ".join(place.leading_comments.split()) for place in file.source_code_info.location}


def _walk(
    messages: list[DescriptorProto], prefix: str, path: tuple[int, ...], number: int
) -> Iterator[tuple[str, tuple[int, ...], DescriptorProto]]:
    """Every message with its full name and its place, but for the entries of maps, which nobody wrote."""
    for n, message in enumerate(messages):
        if message.options.map_entry:
            continue
        name, place = f"{prefix}.{message.name}", (*path, number, n)
        yield name, place, message
        yield from _walk(list(message.nested_type), name, place, 3)


def _all_messages() -> Iterator[tuple[FileDescriptorProto, str, tuple[int, ...], DescriptorProto]]:
    for file in _files():
        for name, place, message in _walk(list(file.message_type), file.package, (), _MESSAGE):
            yield file, name, place, message


@cache
def messages() -> dict[str, Message]:
    """Every message of the contract by its full name."""
    found: dict[str, Message] = {}
    for file, name, place, message in _all_messages():
        comments = _comments(file)
        fields = {
            field.name: Field(
                name, field.name, field.number, comments.get((*place, 2, n), ""),
                field.type in {FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_BYTES},
                field.options.debug_redact,
            )
            for n, field in enumerate(message.field)
        }  # fmt: skip
        found[name] = Message(name, fields)
    return found


def enums() -> Iterator[tuple[str, EnumDescriptorProto]]:
    """Every enum of the contract with its full name."""
    for file in _files():
        for enum in file.enum_type:
            yield f"{file.package}.{enum.name}", enum
    for _, name, _, message in _all_messages():
        for enum in message.enum_type:
            yield f"{name}.{enum.name}", enum


def elements() -> Iterator[Element]:
    """Everything that a reader of the contract meets."""
    for file in _files():
        comments = _comments(file)
        for n, enum in enumerate(file.enum_type):
            yield from _enum_elements(enum, file.package, (_ENUM, n), comments)
        for n, extension in enumerate(file.extension):
            yield Element(f"{file.package}.{extension.name}", comments.get((_EXTENSION, n), ""))
        for n, service in enumerate(file.service):
            yield Element(f"{file.package}.{service.name}", comments.get((_SERVICE, n), ""))
            for m, method in enumerate(service.method):
                name = f"{file.package}.{service.name}.{method.name}"
                yield Element(name, comments.get((_SERVICE, n, 2, m), ""))
    for file, name, place, message in _all_messages():
        comments = _comments(file)
        yield Element(name, comments.get(place, ""))
        for n, field in enumerate(message.field):
            yield Element(f"{name}.{field.name}", comments.get((*place, 2, n), ""))
        for n, enum in enumerate(message.enum_type):
            yield from _enum_elements(enum, name, (*place, 4, n), comments)
        written = [n for n, one in enumerate(message.oneof_decl) if not one.name.startswith("_")]  # not of `optional`
        for n in written:
            yield Element(f"{name}.{message.oneof_decl[n].name}", comments.get((*place, 8, n), ""))


def _enum_elements(
    enum: EnumDescriptorProto, prefix: str, place: tuple[int, ...], comments: dict[tuple[int, ...], str]
) -> Iterator[Element]:
    yield Element(f"{prefix}.{enum.name}", comments.get(place, ""))
    for n, value in enumerate(enum.value):
        yield Element(f"{prefix}.{enum.name}.{value.name}", comments.get((*place, 2, n), ""))


@cache
def rpcs() -> tuple[Rpc, ...]:
    """Every RPC of the contract."""
    return tuple(
        _rpc(f"{file.package}.{service.name}", method, _comments(file).get((_SERVICE, n, 2, m), ""))
        for file in _files()
        for n, service in enumerate(file.service)
        for m, method in enumerate(service.method)
    )


def _rpc(service: str, method: MethodDescriptorProto, comment: str) -> Rpc:
    rules = method.options.Extensions[options_pb2.rules]
    rule: Any = method.options.Extensions[_HTTP]
    verb: str = rule.WhichOneof("pattern") or ""
    return Rpc(
        name=f"{service}.{method.name}",
        comment=comment,
        ruled=method.options.HasExtension(options_pb2.rules),
        effect=rules.effect,
        scope=rules.scope,
        idempotent=rules.idempotent,
        also_serves=frozenset(options_pb2.CallerKind.Kind.Name(kind) for kind in rules.also_serves),
        anonymous=rules.anonymous,
        internal=rules.internal,
        unary=not (method.client_streaming or method.server_streaming),
        request=messages()[method.input_type.removeprefix(".")],
        response=messages()[method.output_type.removeprefix(".")],
        verb=verb,
        pattern=getattr(rule, verb) if verb else "",
        body=rule.body,
    )
