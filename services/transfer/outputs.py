"""Files that hold license keys: made for their owner alone, and on disk before anything relies on them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class KeysFile:
    """Where generated keys go, a JSON object a line, each line of the import at most once."""

    def __init__(self, path: Path, *, goes_on: bool) -> None:
        """FileExistsError unless `goes_on`, since keys of something else must not be mixed in."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        goes_on = goes_on or (path.exists() and path.stat().st_size == 0)
        self._descriptor = os.open(path, flags if goes_on else flags | os.O_EXCL, 0o600)
        self._there: set[int] = set()
        os.fchmod(self._descriptor, 0o600)
        text = path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):  # the last run was killed as it wrote
            os.ftruncate(self._descriptor, len(whole))
        try:
            self._there = {int(json.loads(line)["line"]) for line in whole.splitlines()}
        except (ValueError, KeyError, TypeError):
            os.close(self._descriptor)
            raise ValueError(f"{path} is not a file of keys that an import wrote") from None

    def write(self, keys: Iterable[Mapping[str, Any]]) -> None:
        """Objects with their `line`; those that are there are left out."""
        new = [key for key in keys if key["line"] not in self._there]
        if new:
            os.write(self._descriptor, b"".join(json.dumps(key).encode() + b"\n" for key in new))
            os.fsync(self._descriptor)
            self._there.update(key["line"] for key in new)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)


def replace_file(path: Path, lines: Iterable[bytes]) -> None:
    """Writes a file of lines as a whole or not at all, mode 0600."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.writelines(line + b"\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
