"""What processes cost, from /proc: processor time and resident memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
STEP_S: Final = 1 / os.sysconf("SC_CLK_TCK")
"""In such steps processor time is told."""
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def available() -> bool:
    """Whether this system tells."""
    return (PROC / "self" / "stat").exists()


def family(pid: int) -> dict[int, str]:
    """A process and all that descend from it, by their ids, with the name of each one's program."""
    children: dict[int, list[int]] = {}
    names: dict[int, str] = {}
    for path in PROC.glob("[0-9]*/stat"):
        with suppress(OSError):
            head, _, tail = path.read_text().rpartition(")")
            number, _, name = head.partition(" (")
            names[int(number)] = name
            children.setdefault(int(tail.split()[1]), []).append(int(number))
    found: dict[int, str] = {}
    left = [pid] if pid in names else []
    while left:
        one = left.pop()
        found[one] = names[one]
        left += children.get(one, [])
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """The processor time, user and system, that processes have used so far in all their threads."""
    ticks = 0
    for pid in pids:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks * STEP_S


def rss_bytes(pid: int) -> int:
    """The resident memory of a process. OSError when it is gone."""
    return int((PROC / str(pid) / "statm").read_text().split()[1]) * _PAGE_BYTES
