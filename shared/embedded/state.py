"""The state directory of a private stack: its lock, its secrets, and what the running one says of itself."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict

from shared.embedded.errors import EmbeddedError
from shared.embedded.places import private_directory


class AlreadyRunningError(EmbeddedError):
    """Another process has this state directory's stack."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a running stack tells the next caller: where it is and which call lines worked."""

    pid: int
    endpoint: str
    api_key_file: str
    lines: tuple[str, ...]
    json_url: str
    """Where JSON over HTTP is taken; empty for nowhere."""


class _RunJson(TypedDict):
    pid: int
    endpoint: str
    api_key_file: str
    lines: list[str]
    json_url: str


class StateDirectory:
    """A directory that keeps a stack's data, secrets and keys from run to run. Files in it are for its owner only.

    It is made when first needed; reading from one that is not there finds nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: int | None = None

    def lock(self) -> None:
        """Takes the directory for this process until `unlock` or its death. AlreadyRunningError when another has it."""
        private_directory(self.path)
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise AlreadyRunningError(f"another run holds {self.path}") from None
        self._lock = lock
        self.clear_run()

    def unlock(self) -> None:
        """Lets the next run in."""
        self.clear_run()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def read(self, name: str) -> str | None:
        """A file's text; None when there is no such file."""
        try:
            return (self.path / name).read_text()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, name: str, text: str) -> Path:
        """Writes a file, 0600, whole or not at all."""
        private_directory(self.path)
        target, aside = self.path / name, self.path / f".{name}.new"
        with contextlib.suppress(FileNotFoundError):
            aside.unlink()
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(target)
        return target

    def write_run(self, record: RunRecord) -> None:
        """Says where the stack is, for a second run to find."""
        self.write("run.json", json.dumps(asdict(record), indent=2) + "\n")

    def read_run(self) -> RunRecord | None:
        """What the running stack says; None while it starts or stops."""
        text = self.read("run.json")
        if text is None:
            return None
        found: _RunJson = json.loads(text)
        return RunRecord(
            found["pid"], found["endpoint"], found["api_key_file"], tuple(found["lines"]), found["json_url"]
        )

    def clear_run(self) -> None:
        """Takes back what `write_run` said."""
        (self.path / "run.json").unlink(missing_ok=True)
