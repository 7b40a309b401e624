"""Runs one program and stops it when whoever asked for it is gone. Standard library only: it is run by its path.

    python guard.py [options] -- PROGRAM ARGUMENT...

Standard input is a pipe whose other end the owner holds; its end means that the owner died, however that happened.
Standard output gets one line, the program's process id. The program's own output goes to standard error.
SIGTERM or SIGINT asks for a stop; each further one passes the program one more stop signal.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final

ASKING: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
PR_SET_PDEATHSIG: Final = 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="guard", description="runs a program that must not outlive its owner")
    parser.add_argument("--signal", default="SIGTERM", help="asks the program to stop")
    parser.add_argument("--within", type=float, default=30.0, help="seconds it has when a stop was asked for")
    parser.add_argument("--orphan-within", type=float, default=30.0, help="seconds it has when the owner is gone")
    parser.add_argument("--uid", type=int, help="run the program as this user")
    parser.add_argument("--gid", type=int, help="and this group, with no other groups")
    parser.add_argument("--remove", help="a directory to remove when the owner is gone")
    parser.add_argument("command", nargs="+")
    return parser.parse_args(arguments)


def _die_with_guard(stop: signal.Signals) -> Callable[[], None] | None:
    """For the child, before exec: have the kernel stop it when the guard itself is killed. Linux only."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    number = int(stop)

    def ask() -> None:
        libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)

    return ask


def _noted(number: int, frame: FrameType | None) -> None:
    """The wake-up descriptor has the number; a handler must be there for it to be written."""


def _wakeups() -> int:
    """A descriptor that gets one byte, the signal's number, for each signal that the guard cares about."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    for number in (*ASKING, signal.SIGCHLD):
        signal.signal(number, _noted)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    return read


def _watch(child: subprocess.Popen[bytes], wakeups: int, options: argparse.Namespace) -> bool:
    """Returns when the child has ended; true when the owner was gone by then."""
    stop = signal.Signals[options.signal]
    orphaned, deadline = False, math.inf
    while child.poll() is None:
        watched = [wakeups] if orphaned else [wakeups, 0]
        left = None if deadline == math.inf else max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select(watched, [], [], left)
        asked = wakeups in ready and any(number in ASKING for number in os.read(wakeups, 512))
        bereft = 0 in ready and not os.read(0, 512)
        orphaned = orphaned or bereft
        if asked or bereft:
            child.send_signal(stop)
            bound = options.orphan_within if orphaned else options.within
            deadline = min(deadline, time.monotonic() + bound)
        elif time.monotonic() >= deadline:
            child.kill()
            deadline = math.inf
    return orphaned


def main(arguments: Sequence[str] | None = None) -> int:
    """Guards one program until it ends; returns its exit status as a shell would."""
    options = _parse(arguments)
    wakeups = _wakeups()
    child = subprocess.Popen(  # noqa: S603 - the owner's own command
        options.command,
        stdin=subprocess.DEVNULL,
        stdout=2,
        stderr=2,
        user=options.uid,
        group=options.gid,
        extra_groups=[] if options.uid is not None else None,
        preexec_fn=_die_with_guard(signal.Signals[options.signal]),  # noqa: PLW1509 - the guard has one thread
    )
    os.write(1, f"{child.pid}\n".encode())
    os.close(1)
    orphaned = _watch(child, wakeups, options)
    if orphaned and options.remove:
        shutil.rmtree(options.remove, ignore_errors=True)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


if __name__ == "__main__":
    raise SystemExit(main())
