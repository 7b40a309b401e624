"""What a client remembers of the files that it has verified: so much that an older one is not believed again."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

from .offline_errors import FileMalformed, FileStateUnreadable
from .offline_format import moment, moment_from

_VERSION: Final = 1


class StateStore(Protocol):
    """Where the memory is kept: any text that is found again as it was left."""

    def load(self) -> str | None:
        """What was saved last; None where nothing was."""
        ...

    def save(self, text: str) -> None:
        """Keeps the text in place of what was there."""
        ...


StateLike: TypeAlias = "StateStore | str | os.PathLike[str]"


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest file of one license or machine: its number and time, and the latest time at which it was verified."""

    seq: int
    server_time: datetime
    clock: datetime


@dataclass(slots=True)
class Memory:
    """What is remembered: files by what they are of, and the highest `revocation_epoch` of each product."""

    files: dict[str, Seen] = field(default_factory=dict[str, Seen])
    epochs: dict[str, int] = field(default_factory=dict[str, int])

    @classmethod
    def load(cls, store: StateStore | None) -> Memory:
        """FileStateUnreadable where what is there is damaged: to begin anew then would be what an attacker wants."""
        text = None if store is None else store.load()
        if text is None:
            return cls()
        try:
            found: Any = json.loads(text)
            if found["v"] != _VERSION:
                raise FileStateUnreadable("what was kept is of another version of the client")
            files = {name: _seen(value) for name, value in found["files"].items()}
            epochs = {str(name): int(value) for name, value in found["epochs"].items()}
        except (ValueError, TypeError, KeyError, AttributeError, FileMalformed):
            raise FileStateUnreadable("what was kept of the files seen before is damaged") from None
        return cls(files, epochs)

    def save(self, store: StateStore | None) -> None:
        if store is None:
            return
        files = {
            name: {"seq": seen.seq, "server_time": moment(seen.server_time), "clock": moment(seen.clock)}
            for name, seen in self.files.items()
        }
        store.save(json.dumps({"v": _VERSION, "files": files, "epochs": self.epochs}, sort_keys=True, indent=1))


class StateFile:
    """A file, replaced as a whole, so that a crash leaves the old one or the new one. Mode 0600."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    def load(self) -> str | None:
        try:
            return self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            raise FileStateUnreadable(f"{self._path} is not text") from None

    def save(self, text: str) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise


def store_of(state: StateLike | None) -> StateStore | None:
    """A path stands for the file there."""
    return StateFile(state) if isinstance(state, str | os.PathLike) else state


def _seen(value: Mapping[str, Any]) -> Seen:
    return Seen(int(value["seq"]), moment_from(value["server_time"]), moment_from(value["clock"]))
