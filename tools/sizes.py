"""Lists modules that have grown beyond 300 lines and fails on those beyond 500. Generated modules do not count."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDERS: Final = ("services", "shared", "clients", "deploy", "tools", "tests")
WARN: Final = 300
FAIL: Final = 500


def sizes() -> dict[Path, int]:
    """The lines of each module that people write, by its path in the tree."""
    found: dict[Path, int] = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "_pb2" not in path.name and not {"build", "node_modules", ".venv"} & set(path.relative_to(ROOT).parts):
                found[path.relative_to(ROOT)] = len(path.read_text().splitlines())
    return found


def main() -> int:
    found = sizes()
    large = {path: lines for path, lines in found.items() if lines > WARN}
    for path, lines in sorted(large.items(), key=lambda item: -item[1]):
        print(f"{'error' if lines > FAIL else 'warning'}: {path} has {lines} lines (aim {WARN}, limit {FAIL})")
    print(f"sizes: {len(found)} modules, {len(large)} over {WARN} lines")
    return 1 if any(lines > FAIL for lines in large.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
