"""`lictor licenses import --dry-run`, and what it shares with the import itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import uuid4

from lictor import AsyncLictor
from lictor.license.v1.license_service_pb2 import ImportLicensesResponse

from services.license import keys
from services.transfer.batches import Entry, Fault, cut, faults_of
from services.transfer.journal import Header
from services.transfer.lines import blocks
from services.transfer.patience import patiently
from services.transfer.progress import Progress

CALL_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What was asked for. `keys_out` None: no key may be generated."""

    file: Path
    journal: Path
    keys_out: Path | None
    rejects: Path
    dry_run: bool = False
    skip_bad: bool = False
    assign_external_ids: bool = False
    send_uncertain: bool = False
    in_flight: int = 4
    batch_lines: int = 500
    patience_s: float = 300.0


@dataclass(slots=True)
class Summary:
    """What came of an import. `seen` counts lines that are not empty."""

    seen: int = 0
    made: int = 0
    there: int = 0
    before: int = 0
    """Of them, those that an earlier run had confirmed."""
    skipped: int = 0
    per_s: float = 0.0
    faults: list[Fault] = field(default_factory=list[Fault])


class DryRun:
    """Every line checked, by itself, against the others of the file and against the record; nothing stored."""

    def __init__(self, client: AsyncLictor, options: ImportOptions, header: Header, lines: int) -> None:
        self._client, self._options, self._header = client, options, header
        self._summary = Summary()
        self._progress = Progress("lines", lines)
        self._blocks = blocks(options.file, options.batch_lines)
        self._names: dict[str, int] = {}
        self._keys: dict[str, int] = {}

    async def run(self) -> Summary:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._options.in_flight):
                group.create_task(self._work())
        self._summary.per_s = self._progress.per_s
        self._progress.end()
        self._summary.faults.sort(key=lambda fault: fault.line)
        return self._summary

    async def _work(self) -> None:
        while (found := next(self._blocks, None)) is not None:
            _, lines = found
            while lines:
                taken = await asyncio.to_thread(cut, self._header, lines)
                self._summary.faults += taken.faults
                self._summary.faults += self._twice(taken.entries)
                if taken.entries:
                    await self._foresee(taken.entries)
                self._summary.seen += taken.lines
                self._progress.add(taken.lines)
                lines = lines[taken.lines :]

    async def _foresee(self, entries: Sequence[Entry]) -> None:
        answer = await foresee(self._client, entries, self._options.patience_s)
        told = [(bad.field, f"{bad.reason}: {bad.description}") for bad in answer.violations]
        # What stands in the file twice is told by line, wherever the two are.
        self._summary.faults += [fault for fault in faults_of(entries, told) if not fault.words.startswith("DUPLICATE")]
        self._summary.there += sum(one.already_there for one in answer.licenses)
        self._summary.made += sum(not one.already_there for one in answer.licenses)

    def _twice(self, entries: Sequence[Entry]) -> list[Fault]:
        found: list[Fault] = []
        for entry in entries:
            number, item = entry.line.number, entry.item
            for field_name, value, seen in (
                ("external_id", item.external_id, self._names),
                ("key", keys.canonical(item.key), self._keys),
            ):
                if value and (first := seen.setdefault(value, number)) != number:
                    found.append(Fault(max(first, number), field_name, f"line {min(first, number)} has it too"))
        return found


async def foresee(client: AsyncLictor, entries: Sequence[Entry], patience_s: float) -> ImportLicensesResponse:
    """What the service says to a batch without storing it."""
    items = [entry.item for entry in entries]
    return await patiently(
        lambda: client.licenses.import_batch(
            items, validate_only=True, request_id=str(uuid4()), timeout_s=CALL_TIMEOUT_S
        ),
        patience_s,
    )
