"""Where things of the servers are: their programs, their data, their sockets."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from shared.embedded.errors import EmbeddedError
from shared.embedded.user import ServerUser, can_enter, run_as

SHARED_ROOT: Final = Path("/var/lib/lictor")
"""Root's place for what the servers' user must reach when the state directory or the virtual environment is private."""
SOCKET_PATH_LIMIT: Final = 103
"""Bytes of a Unix socket's path: 107 on Linux, 103 on macOS."""
LONGEST_SOCKET_NAME: Final = len("/lictor-12345678/.s.PGSQL.5432.lock")


def private_directory(path: Path) -> Path:
    """Makes a directory that only its owner lists; root's can be passed through, for `nobody` to reach the data.

    A directory that is there already keeps its mode, and so do all parents.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir()
    except FileExistsError:
        return path
    path.chmod(0o711 if os.geteuid() == 0 else 0o700)
    return path


def carried_programs(
    package: str, distribution: str, parts: tuple[str, ...], probe: Callable[[Path], Path], user: ServerUser | None
) -> Path:
    """The directory that holds a wheel's `parts`, executable by `user`; copied to a place of root's when it must be.

    `probe` names the program in such a directory that shows whether it can be executed.
    """
    spec = find_spec(package)  # not imported: the packages do things on import that we do not want
    if spec is None or spec.origin is None:
        raise EmbeddedError(f"{distribution} is not installed: run `make setup`, or set LICTOR_POSTGRES_DSN")
    site = Path(spec.origin).parent.parent
    if user is None or _runs(probe(site), user):
        return site
    target = private_directory(SHARED_ROOT) / f"{distribution}-{version(distribution)}"
    if not target.exists():
        _copy_programs(site, parts, target)
    if not _runs(probe(target), user):
        raise EmbeddedError(f"{probe(target)} cannot be executed by uid {user.uid}; set LICTOR_POSTGRES_DSN instead")
    return target


def _runs(program: Path, user: ServerUser) -> bool:
    try:
        return run_as(user, [program, "--version"]).returncode == 0
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EINVAL):
            raise EmbeddedError(
                f"root cannot become uid {user.uid} here, and Postgres does not run as root; set LICTOR_POSTGRES_DSN"
            ) from error
        return False


def _copy_programs(site: Path, parts: tuple[str, ...], target: Path) -> None:
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    try:
        for part in parts:
            if (site / part).exists():
                shutil.copytree(site / part, fresh / part, symlinks=True)
        for path in (fresh, *fresh.rglob("*")):
            if not path.is_symlink():
                runs = path.is_dir() or path.stat().st_mode & 0o100
                path.chmod(0o755 if runs else 0o644)
        fresh.rename(target)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        if not target.exists():  # else another process was first with the same copy
            raise


def data_home(state: Path, name: str, user: ServerUser | None) -> Path:
    """The directory for a server's files, owned by whoever runs it: `state/name`, or a link there to a place that
    the server's user can reach. Removing the state directory forgets the place, so a new one starts empty."""
    home = state / name
    if home.is_symlink() and not home.exists():
        raise EmbeddedError(f"{home} leads to {home.readlink()}, which is gone: remove {state} to start afresh")
    if not home.exists():
        if can_enter(user, state):
            home.mkdir()
        else:
            mark = hashlib.sha256(os.fsencode(state.resolve())).hexdigest()[:16]
            home.symlink_to(tempfile.mkdtemp(prefix=f"{mark}-", dir=private_directory(SHARED_ROOT)))
        home.chmod(0o700)
        if user is not None:
            user.take(home)
    home = home.resolve()
    owner = home.stat().st_uid
    if owner != (os.geteuid() if user is None else user.uid):
        raise EmbeddedError(f"{home} belongs to uid {owner}: run as that user, or choose another state directory")
    if not can_enter(user, home):
        raise EmbeddedError(
            f"{home} cannot be entered by uid {owner} any more: a directory above it has become private"
        )
    return home


@contextmanager
def temporary_state() -> Generator[Path]:
    """A state directory that goes away with all that was put for it elsewhere. Root's can be reached by `nobody`."""
    base = Path(tempfile.mkdtemp(prefix="lictor-state-"))
    base.chmod(0o711)
    try:
        yield base / "state"
    finally:
        remove_state(base / "state")
        shutil.rmtree(base, ignore_errors=True)


def remove_state(state: Path) -> None:
    """Removes a state directory that nothing runs on, and the place its data were put in where that is another."""
    with contextlib.suppress(OSError):
        shutil.rmtree((state / "postgres").readlink())
    shutil.rmtree(state, ignore_errors=True)


def run_directory(user: ServerUser | None) -> Path:
    """A new directory for sockets, 0700, with a path that is short enough for them."""
    for parent in (tempfile.gettempdir(), "/tmp", "/var/tmp"):  # noqa: S108 - mkdtemp makes the name in it
        fits = len(os.fsencode(parent)) + LONGEST_SOCKET_NAME <= SOCKET_PATH_LIMIT
        if fits and Path(parent).is_dir() and os.access(parent, os.W_OK) and can_enter(user, Path(parent)):
            made = Path(tempfile.mkdtemp(prefix="lictor-", dir=parent))
            if user is not None:
                user.take(made)
            return made
    raise EmbeddedError("no temporary directory has a path that is short enough for a socket: set TMPDIR")
