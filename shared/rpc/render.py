"""Values to protobuf's own messages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(at: datetime | None) -> Timestamp | None:
    """Absent stays absent, never zero."""
    if at is None:
        return None
    made = Timestamp()
    made.FromDatetime(at)
    return made


def duration(length: timedelta | None) -> Duration | None:
    if length is None:
        return None
    made = Duration()
    made.FromTimedelta(length)
    return made


def struct(data: Mapping[str, Any]) -> Struct | None:
    if not data:
        return None
    made = Struct()
    made.update(dict(data))
    return made
