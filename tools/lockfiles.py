"""Checks the lock files: pins with hashes, no address of any index; asks for advisories where that can be done.

An audit needs the program `pip-audit` and a reachable advisory source; without them it is named as not run.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final, TypedDict

ROOT: Final = Path(__file__).resolve().parent.parent
REQUIREMENTS: Final = ROOT / "requirements"
ADDRESS: Final = re.compile(r"://|^\s*(-i|-f)\b|^\s*--(index|extra-index|find-links|trusted-host|no-index|pre)\b")
PIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[^\]]*\])?==[^\s;]+(\s*;.*)?")
HASH: Final = re.compile(r"sha256:[0-9a-f]{64}")
AUDIT_WITHIN_S: Final = 120


class _Dependency(TypedDict, total=False):
    name: str
    version: str
    vulns: list[dict[str, object]]


class _Audit(TypedDict):
    dependencies: list[_Dependency]


def entries(text: str) -> list[tuple[int, str]]:
    """The logical lines of a requirements file with the numbers they begin at, without comments."""
    found: list[tuple[int, str]] = []
    joined, begun = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        bare = re.sub(r"(^|\s)#.*$", "", line).rstrip()
        begun = begun if joined else number
        joined += bare.removesuffix("\\") + " "
        if not bare.endswith("\\"):
            if joined.strip():
                found.append((begun, joined.strip()))
            joined = ""
    return found


def faults(name: str, text: str) -> list[str]:
    """What is wrong with one lock file, each with its line."""
    found = [
        f"{name}:{n}: an address or an index option"
        for n, line in enumerate(text.splitlines(), 1)
        if ADDRESS.search(line)
    ]
    for number, entry in entries(text):
        pin, *hashes = re.split(r"\s+--hash=", entry)
        if not PIN.fullmatch(pin):
            found.append(f"{name}:{number}: not a pin: {pin[:60]}")
        elif not hashes or not all(HASH.fullmatch(value) for value in hashes):
            found.append(f"{name}:{number}: a pin without its hashes: {pin[:60]}")
    return found


def audit(path: Path) -> list[str] | str:
    """The advisories for one lock file, or a sentence on why they could not be asked for."""
    program = shutil.which("pip-audit")
    if program is None:
        return "pip-audit is not installed"
    command = [program, "--requirement", str(path), "--require-hashes", "--disable-pip", "--format", "json"]
    try:
        done = subprocess.run(command, text=True, capture_output=True, check=False, timeout=AUDIT_WITHIN_S)
        report: _Audit = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return f"pip-audit had no answer in {AUDIT_WITHIN_S} s"
    except ValueError:
        return "pip-audit could not reach its advisory source"
    return [
        f"{found.get('name')} {found.get('version')}: {advisory.get('id')}"
        for found in report["dependencies"]
        for advisory in found.get("vulns", [])
    ]


def main() -> int:
    files = sorted(REQUIREMENTS.glob("*.txt"))
    found = [fault for path in files for fault in faults(path.name, path.read_text())]
    if not files:
        found.append("there is no lock file in requirements/")
    audited = audit(REQUIREMENTS / "run.txt")
    if isinstance(audited, str):
        print(f"advisories: audit not run ({audited})")
    else:
        found += audited
    print("\n".join(found) or f"lock files: {len(files)} clean")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
