"""Reads what is known of this machine. Only reads: files, links, the environment, and on macOS one system program.

What a fact is worth is decided elsewhere (`machine_identity`), so nothing here fails: what cannot be read says so.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from .machine_shape import (
    FILES,
    IDENTITY_FILE,
    MOUNT_POINTS,
    REGISTRY_VALUES,
    VARIABLES,
    Disk,
    IdentityFile,
    MachineFacts,
    Mount,
    Nic,
    Reading,
)

_READ_BYTES: Final = 4096
_IOREG: Final = ("/usr/sbin/ioreg", "-rd1", "-c", "IOPlatformExpertDevice")
_IOREG_TIMEOUT_S: Final = 5.0
_SIOCETHTOOL: Final = 0x8946
_ETHTOOL_GPERMADDR: Final = 0x20
_MAX_ADDRESS_BYTES: Final = 32
_IFREQ_BYTES: Final = 40
_MAX_LAYERS: Final = 16


def collect(
    root: Path = Path("/"), environment: Mapping[str, str] | None = None, platform: str = sys.platform
) -> MachineFacts:
    """The facts of this machine, or of one whose files are under `root`."""
    env = os.environ if environment is None else environment
    chosen = {name: env[name] for name in VARIABLES if env.get(name)}
    given = chosen.get(IDENTITY_FILE)
    identity_file = _identity_file(root, given) if given else None
    if platform == "darwin":
        return MachineFacts(platform, chosen, identity_file=identity_file, ioreg=_ioreg())
    if platform == "win32":
        return MachineFacts(platform, chosen, identity_file=identity_file, registry=_registry())
    if platform != "linux":
        return MachineFacts(platform, chosen, identity_file=identity_file)
    mounts, root_device = _mounts(root)
    return MachineFacts(
        platform,
        chosen,
        files={path: reading for path in FILES if (reading := _read(_under(root, path))) is not None},
        mounts=mounts,
        identity_file=identity_file,
        nics=tuple(_nics(root)),
        root_disks=tuple(_root_disks(root, mounts.get("/"), root_device)),
        cpu_model=_cpu_model(root),
    )


def _under(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _read(path: Path) -> Reading | None:
    """The start of a file; None where there is none."""
    try:
        with path.open("rb") as file:
            return Reading(file.read(_READ_BYTES).decode(errors="replace"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return Reading(problem=error.strerror or type(error).__name__)


def _text(path: Path) -> str:
    reading = _read(path)
    return reading.text.strip() if reading else ""


def _number(path: Path) -> int:
    """-1 for what is no number."""
    text = _text(path)
    return int(text) if text.isdecimal() else -1


def _identity_file(root: Path, given: str) -> IdentityFile:
    path = Path(given)
    reading = _read(path) or Reading(problem="No such file or directory")
    try:
        on_root = path.stat().st_dev == root.stat().st_dev
    except OSError:
        on_root = True
    return IdentityFile(given, reading, on_root)


def _mounts(root: Path) -> tuple[dict[str, Mount], str]:
    """What is mounted in the places that matter, and the device of `/` as `major:minor`."""
    mounts, device = dict[str, Mount](), ""
    try:
        text = _under(root, "/proc/self/mountinfo").read_text(errors="replace")
    except OSError:
        return mounts, device
    for line in text.splitlines():
        left, dash, right = line.partition(" - ")
        fields, parts = left.split(" "), right.split(" ")
        if not dash or len(fields) < 5 or len(parts) < 3 or fields[4] not in MOUNT_POINTS:
            continue
        # A later mount in the same place hides the one before.
        mounts[fields[4]] = Mount(parts[0], parts[1], parts[2])
        device = fields[2] if fields[4] == "/" else device
    return mounts, device


def _nics(root: Path) -> Iterator[Nic]:
    classes = _under(root, "/sys/class/net")
    for name in sorted(_names(classes)):
        link = classes / name
        real = Path(os.path.realpath(link))
        device = link / "device"
        yield Nic(
            name=name,
            path="/" + os.path.relpath(real, os.path.realpath(root)),
            hardware_type=_number(link / "type"),
            address=_text(link / "address"),
            assigned=_number(link / "addr_assign_type"),
            permanent_address=_permanent_address(name) if root == Path("/") else "",
            onboard=(device / "acpi_index").exists() or (device / "index").exists(),
            removable=_text(device / "removable") == "removable",
        )


def _names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder)]
    except OSError:
        return []


def _permanent_address(name: str) -> str:
    """What `ethtool -P` shows, which needs no privilege; empty where there is none."""
    if sys.platform != "linux":
        return ""
    import fcntl  # noqa: PLC0415 - there is none on Windows

    answer = array("B", struct.pack("II", _ETHTOOL_GPERMADDR, _MAX_ADDRESS_BYTES) + bytes(_MAX_ADDRESS_BYTES))
    request = struct.pack("16sP", name.encode()[:15], answer.buffer_info()[0]).ljust(_IFREQ_BYTES, b"\0")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:  # a handle for the kernel; nothing is sent
            fcntl.ioctl(handle, _SIOCETHTOOL, request)
    except OSError:
        return ""
    size = struct.unpack_from("II", answer)[1]
    return ":".join(f"{byte:02x}" for byte in answer[8 : 8 + size]) if size == 6 else ""


def _root_disks(root: Path, mount: Mount | None, device: str) -> Iterator[Disk]:
    """The disks that `/` is on, through partitions, encryption, volumes and arrays."""
    if mount is None:
        return
    if device.startswith("0:") and mount.source.startswith("/dev/"):
        # Btrfs has a device number of its own; what it names as its source has the disk's.
        try:
            number = _under(root, mount.source).stat().st_rdev
        except OSError:
            return
        device = f"{os.major(number)}:{os.minor(number)}"
    by_id = _ids(root)
    start = Path(os.path.realpath(_under(root, f"/sys/dev/block/{device}")))
    for name in sorted(_disks_below(start, _MAX_LAYERS)):
        yield Disk(name, tuple(sorted(by_id.get(name, ()))))


def _disks_below(block: Path, layers: int) -> set[str]:
    if not block.exists() or layers == 0:
        return set()
    whole = block.parent if (block / "partition").exists() else block
    slaves = _names(whole / "slaves")
    if not slaves:
        return {whole.name}
    below = (Path(os.path.realpath(whole / "slaves" / slave)) for slave in slaves)
    return {name for slave in below for name in _disks_below(slave, layers - 1)}


def _ids(root: Path) -> dict[str, list[str]]:
    folder = _under(root, "/dev/disk/by-id")
    found = dict[str, list[str]]()
    for name in _names(folder):
        try:
            found.setdefault(os.path.basename(os.readlink(folder / name)), []).append(name)
        except OSError:
            continue
    return found


def _cpu_model(root: Path) -> str:
    for line in _text(_under(root, "/proc/cpuinfo")).splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"model name", "Model"}:
            return value.strip()
    return ""


def _ioreg() -> Reading:
    try:
        done = subprocess.run(  # noqa: S603 - a fixed program by its full path, without a shell
            _IOREG, capture_output=True, stdin=subprocess.DEVNULL, timeout=_IOREG_TIMEOUT_S, check=False
        )
    except OSError as error:
        return Reading(problem=f"{_IOREG[0]}: {error.strerror}")
    except subprocess.TimeoutExpired:
        return Reading(problem=f"{_IOREG[0]} did not answer within {_IOREG_TIMEOUT_S:g} s")
    if done.returncode:
        return Reading(problem=f"{_IOREG[0]} ended with {done.returncode}")
    return Reading(done.stdout.decode(errors="replace"))


def _registry() -> dict[str, Reading]:
    found = dict[str, Reading]()
    if sys.platform == "win32":
        import winreg  # noqa: PLC0415 - there is none elsewhere

        # A program of 32 bits would be shown another MachineGuid, or none.
        access = winreg.KEY_READ | winreg.KEY_WOW64_64KEY
        for path in REGISTRY_VALUES:
            place, _, name = path.rpartition("\\")
            try:
                with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, place, 0, access) as key:
                    found[path] = Reading(str(winreg.QueryValueEx(key, name)[0]))
            except FileNotFoundError:
                continue
            except OSError as error:
                found[path] = Reading(problem=error.strerror or type(error).__name__)
    return found
