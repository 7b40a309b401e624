"""What deploy/ says, read: the Dockerfile's stages, what may be sent to its build, and the compose file."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Final, cast

import yaml

from tests.helpers.embedded import TREE

DEPLOY: Final = TREE / "deploy"
HOME: Final = "/opt/lictor"
"""Where the image holds everything of ours."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the Dockerfile: what it begins from, its name or "", and its (instruction, text) in order."""

    base: str
    name: str
    steps: tuple[tuple[str, str], ...]

    def all(self, instruction: str) -> list[str]:
        """The texts of one instruction."""
        return [text for name, text in self.steps if name == instruction]

    def environment(self) -> dict[str, str]:
        """What its ENV lines set."""
        pairs = (word.partition("=") for text in self.all("ENV") for word in shlex.split(text))
        return {name: value for name, _, value in pairs}


def dockerfile() -> tuple[Stage, ...]:
    """The stages, first to last."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text())
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    stages: list[tuple[str, str, list[tuple[str, str]]]] = []
    for line in filter(str.strip, lines):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append((base, name, []))
        else:
            stages[-1][2].append((instruction, rest.strip()))
    return tuple(Stage(base, name, tuple(steps)) for base, name, steps in stages)


def stage(name: str) -> Stage:
    """A stage by its name; the last one for ""."""
    return next(one for one in reversed(dockerfile()) if one.name == name)


def sent(path: PurePosixPath) -> bool:
    """Whether .dockerignore lets a file of the tree into the build. The last line that matches it, or its folder, decides."""
    names = [str(path), *(str(parent) for parent in path.parents if parent.name)]
    verdict = True
    for line in (TREE / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        if pattern.startswith("**/"):
            hit = any(fnmatchcase(PurePosixPath(name).name, pattern[3:]) for name in names)
        else:
            hit = any(fnmatchcase(name, pattern) for name in names)
        verdict = line.startswith("!") if hit else verdict
    return verdict


def sources(text: str) -> tuple[list[Path], str]:
    """The files of the tree that a COPY line takes and .dockerignore lets through, and where it puts them."""
    *names, to = text.split()
    found = [
        path for name in names for path in ([TREE / name] if (TREE / name).is_file() else (TREE / name).rglob("*"))
    ]
    return [path for path in found if path.is_file() and sent(PurePosixPath(path.relative_to(TREE)))], to


def compose() -> dict[str, Any]:
    """The compose file, its anchors resolved."""
    return cast("dict[str, Any]", yaml.safe_load((DEPLOY / "compose.yaml").read_text()))


def secrets_of(service: dict[str, Any]) -> dict[str, str]:
    """The secrets that a service is given: the name under /run/secrets -> the secret's own name."""
    given = service.get("secrets", ())
    pairs = ((one, one) if isinstance(one, str) else (one["target"], one["source"]) for one in given)
    return dict(pairs)
