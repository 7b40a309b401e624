"""What of a file goes into one call, always cut and named in the same way, so that a batch sent again is the same call."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from lictor.license.v1.license_service_pb2 import ImportedLicense, LicenseImport

from services.transfer.journal import Header
from services.transfer.lines import Line, LineError, parse

MAX_BATCH_BYTES: Final = 1024 * 1024 - 4096
"""A call takes 1 MiB; a little is around the items."""
MAX_BATCH_LINES: Final = 1000
ITEM_FRAME_BYTES: Final = 6


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a line. `field` is empty where it is the line itself."""

    line: int
    field: str
    words: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.field + ': ' if self.field else ''}{self.words}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A good line and its license."""

    line: Line
    item: LicenseImport


@dataclass(frozen=True, slots=True)
class Cut:
    """Entries that fit into one call, and how many lines they come from, bad ones too."""

    entries: Sequence[Entry]
    faults: Sequence[Fault]
    lines: int

    @property
    def unnamed(self) -> int:
        """How many have no external_id, and so would come twice if they were sent as two calls."""
        return sum(not entry.item.external_id for entry in self.entries)


def cut(header: Header, lines: Sequence[Line]) -> Cut:
    """As many of the lines, from the first on, as one call takes."""
    entries: list[Entry] = []
    faults: list[Fault] = []
    room = MAX_BATCH_BYTES
    for count, line in enumerate(lines):
        try:
            entry = entry_of(header, line)
        except LineError as error:
            faults.append(Fault(line.number, "", str(error)))
            continue
        room -= entry.item.ByteSize() + ITEM_FRAME_BYTES
        if room < 0:
            if entries:
                return Cut(entries, faults, count)
            faults.append(Fault(line.number, "", "is too large for a call of 1 MiB"))
            room = MAX_BATCH_BYTES
            continue
        entries.append(entry)
    return Cut(entries, faults, len(lines))


def entry_of(header: Header, line: Line) -> Entry:
    """The license of a line, with a name of its own where the import gives one. LineError."""
    item = parse(line)
    if header.assign_external_ids and not item.external_id:
        name = hashlib.sha256(f"{header.identity}|{line.number}|".encode() + line.raw).hexdigest()
        item.external_id = f"import-{name[:40]}"
    return Entry(line, item)


def digest(entries: Sequence[Entry]) -> str:
    """Tells one batch from another by what is in it, in hex."""
    found = hashlib.sha256()
    for entry in entries:
        found.update(b"%d %d " % (entry.line.number, len(entry.line.raw)) + entry.line.raw)
    return found.hexdigest()


def request_id(header: Header, block: int, part: int, sha256: str) -> str:
    """The same for the same batch of the same import, in whichever run."""
    of = f"lictor import 1|{header.account_id}|{header.mode}|{header.identity}|{block}|{part}|{sha256}"
    return str(UUID(bytes=hashlib.sha256(of.encode()).digest()[:16], version=4))


def faults_of(entries: Sequence[Entry], violations: Sequence[tuple[str, str]]) -> list[Fault]:
    """What the service said of items, said of lines. `violations` are paths and words."""
    found: list[Fault] = []
    for path, words in violations:
        place, _, field = path.removeprefix("items[").partition("]")
        if path.startswith("items[") and place.isdecimal() and int(place) < len(entries):
            found.append(Fault(entries[int(place)].line.number, field.removeprefix("."), words))
        else:
            found.append(Fault(entries[0].line.number, path, words))
    return found


def keys_of(entries: Sequence[Entry], done: Sequence[ImportedLicense]) -> list[dict[str, object]]:
    """The generated keys of a batch, as the file of keys has them."""
    return [
        {
            "line": entry.line.number,
            "license_id": one.license_id,
            "external_id": entry.item.external_id,
            "key": one.key,
        }
        for entry, one in zip(entries, done, strict=True)
        if one.key
    ]
