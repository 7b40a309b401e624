"""Who runs the servers, and where that user can go. Postgres refuses uid 0, so root hands over to `nobody`."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.embedded.errors import EmbeddedError

ASK_TIMES: Final = 3
"""A child can die between fork and exec in a process full of threads; that says nothing about the directory."""


@dataclass(frozen=True, slots=True)
class ServerUser:
    """Another user than this process's own."""

    uid: int
    gid: int

    def take(self, path: Path) -> None:
        """Gives a file or directory of ours to this user."""
        os.chown(path, self.uid, self.gid)


def server_user(existing: Path) -> ServerUser | None:
    """Who is to run a server whose files are in `existing`; None means this process's own user.

    As root it is the owner of files that are there already, else `nobody`.
    """
    if os.geteuid() != 0:
        return None
    if existing.exists() and (found := existing.stat()).st_uid != 0:
        return ServerUser(found.st_uid, found.st_gid)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedError("Postgres does not run as root and this machine has no user `nobody`") from None
    return ServerUser(nobody.pw_uid, nobody.pw_gid)


def server_environment() -> dict[str, str]:
    """This process's environment without what would steer a Postgres program elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LICTOR_"))}
    return kept | {"LC_ALL": "C"}


def run_as(
    user: ServerUser | None,
    command: Sequence[str | Path],
    *,
    text: str = "",
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a short program as that user; its status is the caller's to judge. OSError when it cannot be executed."""
    return subprocess.run(  # noqa: S603 - programs of ours
        [str(part) for part in command],
        input=text,
        text=True,
        check=False,
        capture_output=True,
        cwd="/",
        env=dict(environment) if environment is not None else server_environment(),
        user=None if user is None else user.uid,
        group=None if user is None else user.gid,
        extra_groups=None if user is None else [],
    )


def can_enter(user: ServerUser | None, directory: Path) -> bool:
    """Whether the user may go into that directory, asked of the system itself: modes alone do not tell."""
    if user is None:
        return True
    for _ in range(ASK_TIMES):
        status = run_as(user, ["/bin/sh", "-c", 'cd "$1"', "sh", directory]).returncode
        if status >= 0:
            return status == 0
    raise EmbeddedError(f"a shell that was to look into {directory} as uid {user.uid} was killed {ASK_TIMES} times")
