"""Structured logs, one line per event, as JSON or text. Secrets never reach them.

Three walls keep secrets out: protobuf messages are rendered by `redact`, which honours the `debug_redact` field
option; values under a key that names a secret are replaced; and whatever looks like one of our credentials is
replaced in every text, tracebacks included.
"""

from __future__ import annotations

import json as json_module
import logging
import re
import sys
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Final, Protocol, TextIO, cast

import structlog
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

REDACTED: Final = "[redacted]"


class Call(Protocol):
    """A call being served."""

    @property
    def call_id(self) -> str:
        """Its id."""
        ...


CALL: Final[ContextVar[Call | None]] = ContextVar("lictor_call", default=None)
"""The call being served; every line logged meanwhile carries its id as `call_id`."""

_SECRET_KEYS: Final = frozenset(
    {"authorization", "password", "secret", "api_key", "license_key", "token", "dsn", "private_key", "pepper", "cookie"}
)
_CREDENTIAL: Final = re.compile(
    r"\b(?:sk_(?:test|live)|op|cs)_[A-Za-z0-9_-]{8,}|\bpk_(?:test|live)_[A-Za-z0-9_-]{8,}(?::[!-~]+)?"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)


@lru_cache(maxsize=4096)
def _is_secret(field: FieldDescriptor) -> bool:
    return field.GetOptions().debug_redact


def redacted_fields(message: Message) -> dict[str, object]:
    """The set fields as plain values: secrets as `[redacted]`, bytes as their length, unknown fields left out."""
    return {field.name: _field_value(field, value) for field, value in message.ListFields()}


def redact(message: Message) -> str:
    """A message as one line of JSON, fields with `debug_redact` as `"[redacted]"`."""
    return json_module.dumps(redacted_fields(message), ensure_ascii=False, default=str)


def _field_value(field: FieldDescriptor, value: object) -> object:
    if _is_secret(field):
        return REDACTED
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        value_field = kind.fields_by_name["value"]
        entries = cast("Mapping[object, object]", value)
        return {str(key): _field_value(value_field, item) for key, item in entries.items()}
    if field.is_repeated:
        return [_plain(item) for item in cast("Iterable[object]", value)]
    return _plain(value)


def _plain(value: object) -> object:
    if isinstance(value, Message):
        return redacted_fields(value)
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    return value


def _clean(value: object) -> object:
    if isinstance(value, Message):
        return _clean(redacted_fields(value))
    if isinstance(value, str):
        return _CREDENTIAL.sub(REDACTED, value)
    if isinstance(value, dict):
        return {key: _clean_entry(str(key), item) for key, item in cast("dict[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in cast("Iterable[object]", value)]
    return value


def _clean_entry(key: str, value: object) -> object:
    return REDACTED if key.lower() in _SECRET_KEYS else _clean(value)


def _drop_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if not key.startswith("_"):
            event[key] = _clean_entry(key, value)
    return event


def _add_call_id(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    call = CALL.get()
    if call is not None:
        event.setdefault("call_id", call.call_id)
    return event


def configure(json: bool, level: str = "info", stream: TextIO | None = None) -> None:
    """Sets up logging of the whole process, the standard library's loggers (grpc, aiohttp, asyncio) included.

    Args:
        json: One JSON object per line; otherwise text for people.
        level: The lowest level that is written, such as `info`.
        stream: Where lines go; standard error unless named.
    """
    out = sys.stderr if stream is None else stream
    number = logging.getLevelNamesMapping()[level.upper()]
    # format_exc_info renders tracebacks without local variables: those hold secrets.
    shared: list[Processor] = [
        _add_call_id,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _drop_secrets,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer(default=str, ensure_ascii=False)
        if json
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared[:-2], structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _drop_secrets,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.INFO))


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger whose lines carry `module=name`. Safe to make before `configure`."""
    return cast("FilteringBoundLogger", structlog.get_logger(module=name))
