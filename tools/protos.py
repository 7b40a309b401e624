"""The contract's tool: makes the Python stubs and the descriptor set, and checks that they are fresh, clean and compatible.

python tools/protos.py make    write clients/python/lictor/<area>/v1/*_pb2*, descriptors.binpb and the stubs under tests/
python tools/protos.py check   buf lint, format and breaking; fail when the committed stubs are stale
"""

from __future__ import annotations

import filecmp
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PROTOS: Final = ROOT / "protos"
WORKSPACE: Final = ROOT / "build" / "protos"
STUBS: Final = ROOT / "clients" / "python" / "lictor"
TEST_PROTOS: Final = ROOT / "tests" / "protos"
"""The service of the conformance suite: no part of the contract, so its stubs lie beside it."""
BIN: Final = Path(sys.executable).parent
IMPORTED: Final = ("google/api/annotations.proto", "google/api/http.proto")
ERROR_DETAILS: Final = ("google/rpc/status.proto", "google/rpc/error_details.proto")
"""What errors carry. No file of the contract imports them; who turns errors into JSON needs them described."""


def _google_file(name: str) -> Path:
    """Where googleapis-common-protos keeps a file; its package `google` is shared with other distributions."""
    folder, _, file = name.rpartition("/")
    spec = find_spec(folder.replace("/", "."))
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("googleapis-common-protos is not installed: run `make setup`")
    return Path(next(iter(spec.submodule_search_locations))) / file


def _lay_workspace() -> None:
    """Copies the contract to build/protos with Google's files beside it, where buf and protoc both find everything."""
    shutil.rmtree(WORKSPACE, ignore_errors=True)
    shutil.copytree(PROTOS, WORKSPACE)
    for name in (*IMPORTED, *ERROR_DETAILS):
        target = WORKSPACE / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_google_file(name), target)


def _run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=cwd or WORKSPACE, check=False, text=True, capture_output=True
    )


def _generate(out: Path) -> None:
    (out / "lictor").mkdir(parents=True, exist_ok=True)
    contract = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.glob("lictor/**/*.proto"))
    _stubs(out, *contract)
    tree = TEST_PROTOS.parent.parent
    _stubs(out, f"-I{tree}", *sorted(str(path.relative_to(tree)) for path in TEST_PROTOS.rglob("*.proto")))
    _protoc(
        "--include_imports", "--include_source_info", f"--descriptor_set_out={out / 'lictor' / 'descriptors.binpb'}",
        *contract, *ERROR_DETAILS,
    )  # fmt: skip


def _stubs(out: Path, *arguments: str) -> None:
    _protoc(
        f"--plugin=protoc-gen-mypy={BIN / 'protoc-gen-mypy'}", f"--plugin=protoc-gen-mypy_grpc={BIN / 'protoc-gen-mypy_grpc'}",
        f"--python_out={out}", f"--grpc_python_out={out}", f"--mypy_out=quiet:{out}", f"--mypy_grpc_out=quiet:{out}",
        *arguments,
    )  # fmt: skip


def _protoc(*arguments: str) -> None:
    done = _run(sys.executable, "-m", "grpc_tools.protoc", f"-I{WORKSPACE}", *arguments)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


def _generated(folder: Path) -> set[Path]:
    found = {path.relative_to(folder) for path in (*folder.glob("*/v1/*_pb2*"), *folder.glob("descriptors.binpb"))}
    return {path for path in found if path.suffix in {".py", ".pyi", ".binpb"}}


def _places(fresh: Path) -> tuple[tuple[Path, Path], ...]:
    """Where stubs are generated, and where they are committed."""
    return (fresh / "lictor", STUBS), (fresh / "tests" / "protos", TEST_PROTOS)


def make() -> int:
    _lay_workspace()
    fresh = ROOT / "build" / "stubs"
    shutil.rmtree(fresh, ignore_errors=True)
    _generate(fresh)
    for made, committed in _places(fresh):
        for old in _generated(committed):
            (committed / old).unlink(missing_ok=True)
        for new in _generated(made):
            (committed / new).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(made / new, committed / new)
        for area in committed.glob("*/v1"):
            (area / "__init__.py").touch()
            (area.parent / "__init__.py").touch()
    return 0


def _stale() -> list[str]:
    fresh = ROOT / "build" / "stubs-check"
    shutil.rmtree(fresh, ignore_errors=True)
    _generate(fresh)
    wrong: list[str] = []
    for made, committed in _places(fresh):
        expected, actual = _generated(made), _generated(committed)
        wrong += [str(path) for path in sorted(expected ^ actual)]
        same = sorted(expected & actual)
        wrong += [str(path) for path in same if not filecmp.cmp(made / path, committed / path, shallow=False)]
    return wrong


def _breaking() -> str:
    """Compares with the newest release's descriptor set, or with HEAD's while there is no release."""
    tag = _run("git", "describe", "--tags", "--abbrev=0", "--match", "v*", cwd=ROOT)
    base = tag.stdout.strip() if tag.returncode == 0 else "HEAD"
    against = ROOT / "build" / "baseline.binpb"
    shown = subprocess.run(
        ["git", "show", f"{base}:clients/python/lictor/descriptors.binpb"], cwd=ROOT, check=False, capture_output=True
    )
    if shown.returncode:
        return ""
    against.write_bytes(shown.stdout)
    return _run(BIN / "buf", "breaking", "--against", against).stdout


def check() -> int:
    _lay_workspace()
    faults: list[str] = []
    lint = _run(BIN / "buf", "lint")
    if lint.returncode:
        faults.append("buf lint:\n" + lint.stdout + lint.stderr)
    form = _run(BIN / "buf", "format", "--diff", "--exit-code", "--exclude-path", "google")
    if form.returncode:
        faults.append("buf format:\n" + form.stdout + form.stderr)
    if broken := _breaking():
        faults.append("buf breaking:\n" + broken)
    if stale := _stale():
        faults.append("stale stubs, run `make protos`: " + ", ".join(stale))
    print("\n".join(faults) or "contract: lint, format, breaking and stubs are clean")
    return 1 if faults else 0


if __name__ == "__main__":
    actions = {"make": make, "check": check}
    if len(sys.argv) != 2 or sys.argv[1] not in actions:
        raise SystemExit(__doc__)
    raise SystemExit(actions[sys.argv[1]]())
