"""Sets of facts under tests/unit/machine_facts, as the values that the client judges."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lictor._core.machine_shape import Disk, IdentityFile, MachineFacts, Mount, Nic, Reading

FOLDER: Final = Path(__file__).parents[1] / "unit" / "machine_facts"


@dataclass(frozen=True, slots=True)
class FactSet:
    """One machine at one time, and what is promised of it.

    `like` is the set it is compared with, whose facts it has but for some changes. With `refusal` it has no fingerprint;
    else `uses` are its components (None: not said), and against `like` `same_text` says whether the text is the same, and
    `rules` which rules still match.
    """

    file: str
    about: str
    facts: MachineFacts
    like: FactSet | None
    refusal: str
    uses: tuple[str, ...] | None
    same_text: bool | None
    rules: Mapping[str, bool]

    def __str__(self) -> str:
        return f"{self.file}: {self.about}"


def all_sets() -> list[FactSet]:
    return [one for path in sorted(FOLDER.glob("*.json")) for one in _sets_of(path)]


def _sets_of(path: Path) -> list[FactSet]:
    raw: dict[str, dict[str, Any]] = {}
    made: dict[str, FactSet] = {}
    for one in json.loads(path.read_text())["sets"]:
        about, like = one["about"], one.get("like")
        raw[about] = one["facts"] if like is None else _changed(raw[like], one["change"])
        made[about] = FactSet(
            path.stem,
            about,
            facts_of(raw[about]),
            made[like] if like is not None else None,
            one.get("refusal", ""),
            tuple(one["uses"]) if "uses" in one else None,
            one.get("same_text"),
            one.get("rules", {}),
        )
    return list(made.values())


def _changed(facts: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Facts with a change laid over them: mappings entry by entry, null taking one away, and all else whole."""
    result = dict(facts)
    for name, value in change.items():
        if isinstance(value, dict) and name in {"files", "mounts", "environment", "registry"}:
            merged: dict[str, Any] = {**result.get(name, {}), **value}
            result[name] = {key: entry for key, entry in merged.items() if entry is not None}
        else:
            result[name] = value
    return result


def _reading(value: Any) -> Reading:
    return Reading(value) if isinstance(value, str) else Reading(problem=value["problem"])


def facts_of(raw: Mapping[str, Any]) -> MachineFacts:
    file = raw.get("identity_file")
    return MachineFacts(
        platform=raw["platform"],
        environment=raw["environment"],
        files={path: _reading(value) for path, value in raw.get("files", {}).items()},
        mounts={point: Mount(**mount) for point, mount in raw.get("mounts", {}).items()},
        identity_file=None
        if file is None
        else IdentityFile(file["path"], Reading(file.get("text", ""), file.get("problem", "")), file["on_root"]),
        nics=tuple(Nic(**nic) for nic in raw.get("nics", [])),
        root_disks=tuple(Disk(disk["name"], tuple(disk["ids"])) for disk in raw.get("root_disks", [])),
        cpu_model=raw.get("cpu_model", ""),
        ioreg=_reading(raw.get("ioreg", "")),
        registry={path: _reading(value) for path, value in raw.get("registry", {}).items()},
    )
