"""What an import has sent and what was confirmed, on disk before anything else is done, so that a killed run goes on."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

FORMAT: Final = 1


class JournalError(Exception):
    """The journal cannot be gone on with; the message says what to do."""


class State(StrEnum):
    """What is known of a batch."""

    SENT = "sent"
    """Its answer is not known: it was done as a whole, or not at all."""
    DONE = "done"
    REFUSED = "refused"
    """Nothing of it was done."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a journal is of. `identity` is the SHA-256 of the file as it was when its import began."""

    account_id: str
    mode: str
    identity: str
    batch_lines: int
    assign_external_ids: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines `first` to `last` of block `block`, without those that were skipped; `sha256` is of what was sent."""

    block: int
    part: int
    first: int
    last: int
    sha256: str
    sent_at: float
    """Unix time, s."""
    unnamed: int
    """How many of its licenses have no external_id."""
    skipped: tuple[int, ...] = ()
    state: State = State.SENT
    made: int = 0
    there: int = 0


@dataclass(slots=True)
class Journal:
    """An open journal, which no other process can open. Every record is on disk when the method that writes it returns."""

    path: Path
    header: Header
    batches: dict[tuple[int, int], Batch] = field(default_factory=dict[tuple[int, int], Batch])
    _descriptor: int = -1

    @classmethod
    def open(cls, path: Path, header: Header) -> Self:
        """Goes on with the journal at `path`, or begins one. JournalError for one of something else, or in use."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise JournalError(f"another run has {path} open: wait for its end") from None
            journal = cls(path, header, _descriptor=descriptor)
            journal._read()
        except BaseException:
            os.close(descriptor)
            raise
        return journal

    def _read(self) -> None:
        text = self.path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):  # the last run was killed as it wrote
            os.ftruncate(self._descriptor, len(whole))
        if not whole:
            self._write({"lictor_import": FORMAT, **asdict(self.header)})
            return
        try:
            first, *records = [json.loads(line) for line in whole.splitlines()]
            if first.pop("lictor_import") != FORMAT:
                raise ValueError
            self._adopt(Header(**first))
            for record in records:
                self._apply(record)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise JournalError(f"{self.path} is not the journal of an import") from None

    def _adopt(self, begun: Header) -> None:
        for name, was, now in (
            ("account", begun.account_id, self.header.account_id),
            ("mode", begun.mode, self.header.mode),
            ("--assign-external-ids", begun.assign_external_ids, self.header.assign_external_ids),
        ):
            if was != now:
                raise JournalError(
                    f"{self.path} is of an import with {name} {was}, and this one has {now}: "
                    "use the same again, or another --journal"
                )
        self.header = begun

    def _apply(self, record: Mapping[str, Any]) -> None:
        place = (int(record["block"]), int(record["part"]))
        match State(record["state"]):
            case State.SENT:
                values: dict[str, Any] = {**record, "skipped": tuple(record["skipped"]), "state": State.SENT}
                self.batches[place] = Batch(**values)
            case State.DONE:
                made, there = int(record["made"]), int(record["there"])
                self.batches[place] = replace(self.batches[place], state=State.DONE, made=made, there=there)
            case State.REFUSED:
                self.batches.pop(place)

    def sent(self, batch: Batch) -> None:
        """To be called before the batch goes out."""
        self._write({**asdict(batch), "state": State.SENT.value})
        self.batches[batch.block, batch.part] = batch

    def done(self, batch: Batch, *, made: int, there: int) -> None:
        place = {"block": batch.block, "part": batch.part}
        self._write({**place, "state": State.DONE.value, "made": made, "there": there})
        self.batches[batch.block, batch.part] = replace(batch, state=State.DONE, made=made, there=there)

    def refused(self, batch: Batch) -> None:
        self._write({"block": batch.block, "part": batch.part, "state": State.REFUSED.value})
        self.batches.pop((batch.block, batch.part))

    def skipped_lines(self) -> Sequence[int]:
        """The numbers of lines that were left out of what was done, in order."""
        return sorted(number for batch in self.batches.values() for number in batch.skipped)

    def _write(self, record: Mapping[str, Any]) -> None:
        os.write(self._descriptor, json.dumps(record).encode() + b"\n")
        os.fsync(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
