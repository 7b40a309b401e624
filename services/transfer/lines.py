"""A file of licenses, one JSON object a line, each a `lictor.license.v1.LicenseImport`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, cast

from google.protobuf import json_format
from lictor.license.v1.license_service_pb2 import LicenseImport

MAX_LINE_BYTES: Final = 1024 * 1024
_READ_BYTES: Final = 1024 * 1024


class LineError(Exception):
    """A line is no license; the message says why, and repeats nothing of the line."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the file. `raw` is without its end."""

    number: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class Outline:
    """What a file is as a whole: its SHA-256 in hex, and how many lines it has."""

    sha256: str
    lines: int


def outline(path: Path) -> Outline:
    """Reads the file once."""
    digest, ends, last = hashlib.sha256(), 0, b"\n"
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
            ends += chunk.count(b"\n")
            last = chunk[-1:]
    return Outline(digest.hexdigest(), ends + (last != b"\n"))


def blocks(path: Path, size: int) -> Iterator[tuple[int, Sequence[Line]]]:
    """The file in blocks of `size` lines, the last one shorter, each with its number from 0. Empty lines are left out."""
    with path.open("rb") as file:
        number = 0
        while found := list(islice(file, size)):
            lines = [Line(number * size + place, raw.strip()) for place, raw in enumerate(found, start=1)]
            yield number, [line for line in lines if line.raw]
            number += 1


def parse(line: Line) -> LicenseImport:
    """The license of a line. LineError."""
    if len(line.raw) > MAX_LINE_BYTES:
        raise LineError("is over 1 MiB")
    try:
        said: object = json.loads(line.raw)
    except UnicodeDecodeError:
        raise LineError("is not UTF-8") from None
    except (json.JSONDecodeError, RecursionError) as error:
        where = f" (column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise LineError(f"is not JSON{where}") from None
    if not isinstance(said, dict):
        raise LineError("is not a JSON object")
    fields = cast("dict[str, object]", said)
    try:
        return json_format.ParseDict(fields, LicenseImport())
    except json_format.ParseError as error:
        raise LineError(_without_values(error, fields)) from None
    except (ValueError, TypeError, RecursionError):
        raise LineError("does not have the fields of a license") from None


def _without_values(error: json_format.ParseError, said: dict[str, object]) -> str:
    """Names what is wrong. A value could be a key, so the library's own words are kept only where they hold none."""
    words = str(error).splitlines()[0]
    values = {str(value) for value in said.values() if not isinstance(value, dict | list)}
    if any(value and value in words for value in values):
        return "has a field of the wrong type or form"
    return words.removeprefix("Failed to parse ")
