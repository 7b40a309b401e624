"""What a look at a deployment found: for people a line each, for programs one JSON object."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """It works, and somebody should know."""
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `fix` says what to do where it is not well."""

    subject: str
    seen: str
    fix: str = ""
    level: Level = Level.OK


def fail(subject: str, seen: str, fix: str) -> Finding:
    return Finding(subject, seen, fix, Level.FAIL)


def warn(subject: str, seen: str, fix: str) -> Finding:
    return Finding(subject, seen, fix, Level.WARN)


def report(findings: Sequence[Finding], *, as_json: bool = False) -> int:
    """Prints them; 1 when one fails."""
    failed = sum(finding.level is Level.FAIL for finding in findings)
    if as_json:
        said = {"ok": not failed, "findings": [asdict(finding) for finding in findings]}
        sys.stdout.write(json.dumps(said, indent=2) + "\n")
        return 1 if failed else 0
    for finding in findings:
        mark = "FAIL" if finding.level is Level.FAIL else finding.level.value
        sys.stdout.write(f"{mark:>4}  {finding.subject}: {finding.seen}\n")
        if finding.fix:
            sys.stdout.write(f"      fix: {finding.fix}\n")
    warned = sum(finding.level is Level.WARN for finding in findings)
    sys.stdout.write(f"{len(findings)} looked at, {warned} to know of, {failed} to fix\n")
    return 1 if failed else 0
