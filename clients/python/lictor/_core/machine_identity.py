"""What identifies a machine: what its operator names, else what it says of itself. Pure: facts in, or a refusal."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from . import machine_shape as shape
from .errors import NoStableIdentityError
from .machine_parts import Fact, is_left_blank, own_facts, text_of
from .machine_shape import MachineFacts, Mount

MIN_GIVEN_CHARS: Final = 8
MAX_GIVEN_CHARS: Final = 256
_CONTAINER_CGROUP: Final = re.compile(r"[/-](docker|lxc|kubepods|libpod|containerd|cri|crio|ecs|garden|buildkit)\b")
_CONTAINER_OVERLAY: Final = re.compile(r"[/=](docker|containerd|containers|kubelet|buildkit|podman)/")
_NO_CONTAINERS: Final = frozenset({"flatpak", "snap", "wsl"})
"""What calls itself a container and shows the machine's own identity."""
ANCHORS: Final = (
    "mounted_id", "node_uid", "pod_uid", "machine_id", "platform_uuid", "machine_guid", "product_uuid", "board_serial",
)  # fmt: skip
"""The facts that can identify a machine alone, the steadiest first. A disk or a network card may be replaced."""


def identify(facts: MachineFacts) -> list[Fact]:
    """The facts that this machine has, those that identify it with a value; the first of them is the steadiest.

    What the operator of the machine names counts alone. Where nothing is named, what the system says counts, except in a
    container: there it is of the image, which others share, or of the host, or new at each start.

    Raises:
        NoStableIdentityError: Nothing identifies the machine.
    """
    markers = container_markers(facts)
    given = _given(facts, markers)
    if given is not None:
        why_not = f"{given.source} counts alone"
        return [given, *(Fact(fact.name, fact.source, why_not=why_not) for fact in own_facts(facts))]
    if markers:
        raise NoStableIdentityError(
            f"this is a container ({markers[0]}), and what it shows of itself is its image's, its host's, or new at "
            "each start",
            reason="CONTAINER_WITHOUT_IDENTITY",
            remedy=f"Mount a file that stays with this installation and name it in {shape.IDENTITY_FILE}, or set "
            f"{shape.NODE_UID} or {shape.POD_UID}",
        )
    own = list(own_facts(facts))
    if not any(fact.value for fact in own if fact.name in ANCHORS):
        tried = "; ".join(f"{fact.source}: {fact.why_not}" for fact in own if fact.name in ANCHORS)
        raise NoStableIdentityError(
            f"this machine has nothing that identifies it and stays ({tried or f'platform {facts.platform}'})",
            reason="NO_MACHINE_IDENTITY",
            remedy=_remedy(facts),
        )
    return sorted(own, key=lambda fact: _order(fact.name))


def _order(name: str) -> int:
    return ANCHORS.index(name) if name in ANCHORS else len(ANCHORS)


def _remedy(facts: MachineFacts) -> str:
    if facts.platform == "linux":
        return (
            f"Make {shape.MACHINE_ID} once (systemd-machine-id-setup, or dbus-uuidgen --ensure={shape.MACHINE_ID}); where "
            f"it is kept across restarts and this client cannot see that, set {shape.IDENTITY_FILE}={shape.MACHINE_ID}"
        )
    return f"Name a file that stays on this machine in {shape.IDENTITY_FILE}"


def container_markers(facts: MachineFacts) -> list[str]:
    """What says that this is a container, in words; none outside of one."""
    kind = facts.environment.get(shape.CONTAINER_KIND, "")
    found = [
        path for path in shape.CONTAINER_FILES if path in facts.files and text_of(facts, path) not in _NO_CONTAINERS
    ]
    found += [name for name in shape.CONTAINER_VARIABLES if name in facts.environment]
    if kind and kind not in _NO_CONTAINERS:
        found.append(f"{shape.CONTAINER_KIND}={kind}")
    if _CONTAINER_CGROUP.search(text_of(facts, shape.INIT_CGROUP)):
        found.append(shape.INIT_CGROUP)
    root = facts.mounts.get("/", Mount(""))
    if "overlay" in root.kind and _CONTAINER_OVERLAY.search(root.options):
        found.append("the root filesystem is a container's overlay")
    if shape.CONTAINER_TYPE in facts.registry:
        found.append(shape.CONTAINER_TYPE)
    return found


def _given(facts: MachineFacts, markers: list[str]) -> Fact | None:
    """The identity that somebody named for this machine; a bad one is refused, never replaced by another."""
    named = [name for name in (shape.IDENTITY_FILE, shape.NODE_UID, shape.POD_UID) if name in facts.environment]
    if not named:
        return None
    if len(named) > 1:
        raise NoStableIdentityError(
            f"{' and '.join(named)} are set, and a machine has one identity",
            reason="IDENTITY_AMBIGUOUS",
            remedy="Set one of them",
        )
    (source,) = named
    if source != shape.IDENTITY_FILE:
        return _checked("node_uid" if source == shape.NODE_UID else "pod_uid", source, facts.environment[source])
    file = facts.identity_file
    if file is None or file.reading.problem:
        problem = file.reading.problem if file else "it was not read"
        raise _unusable(source, f"the file cannot be read ({problem})", "Mount it, and let this user read it")
    if markers and file.on_root:
        raise _unusable(
            source,
            "the file is no mount: it is a part of the container's image, which others share, or new with each container",
            "Mount a file or a volume from outside the container",
        )
    return _checked("mounted_id", source, file.reading.text)


def _checked(name: str, source: str, text: str) -> Fact:
    value = text.strip(" \t\r\n\0")
    if not MIN_GIVEN_CHARS <= len(value) <= MAX_GIVEN_CHARS:
        bounds = f"{MIN_GIVEN_CHARS} to {MAX_GIVEN_CHARS} characters"
        raise _unusable(source, f"the identity has {len(value)} characters", f"Give it {bounds}")
    if any(unicodedata.category(letter) == "Cc" for letter in value):
        raise _unusable(source, "the identity has control characters", "Give it one line of text")
    if is_left_blank(value):
        raise _unusable(source, "the identity is one that many machines have", "Give it a random one, as of uuidgen")
    return Fact(name, source, value)


def _unusable(source: str, problem: str, remedy: str) -> NoStableIdentityError:
    return NoStableIdentityError(f"{source} is set, and {problem}", reason="IDENTITY_UNUSABLE", remedy=remedy)
