"""Which files may hold a secret."""

from __future__ import annotations

import stat


def open_to_others(mode: int) -> bool:
    """Whether a file of this `st_mode` is open to others than its owner, and its group to read.

    The group may read: that is how a mounted secret reaches a process that does not own it.
    """
    return bool(mode & (stat.S_IRWXO | stat.S_IWGRP))
