"""Lints what deploys: deploy/Dockerfile with hadolint, deploy/*.yaml with yamllint; both work offline.

hadolint has no wheel for some platforms. There the Dockerfile is named as not linted, and the rest is checked.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PROGRAMS: Final = Path(sys.executable).parent
DOCKERFILE: Final = ROOT / "deploy" / "Dockerfile"
YAML_RULES: Final = "{extends: default, rules: {line-length: {max: 125}, document-start: disable}}"


def lint(*command: str | Path) -> list[str]:
    """What a linter found, line by line; empty when it is content."""
    done = subprocess.run([str(part) for part in command], cwd=ROOT, text=True, capture_output=True, check=False)
    said = (done.stdout + done.stderr).strip().splitlines()
    return (said or [f"{command[0]} ended with status {done.returncode}"]) if done.returncode else []


def main() -> int:
    documents = sorted((ROOT / "deploy").rglob("*.yaml"))
    found = lint(PROGRAMS / "yamllint", "--strict", "--format", "parsable", "-d", YAML_RULES, *documents)
    hadolint = PROGRAMS / "hadolint"
    if hadolint.exists():
        found += lint(hadolint, "--no-color", DOCKERFILE)
    else:
        print("deploy: the Dockerfile is not linted: hadolint has no wheel for this platform, so it was not run")
    print("\n".join(found) or f"deploy: {len(documents)} YAML files{' and the Dockerfile' * hadolint.exists()} clean")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
