"""Which facts of a machine tell it from all others, and stay the same. Pure.

A fact identifies when it is of this machine alone and still there after a restart. Each must do so by itself, since under
MATCH_ANY a single component that two machines share makes them one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from . import machine_shape as shape
from .machine_shape import Disk, MachineFacts, Nic, Reading

_MIN_SERIAL_CHARS: Final = 5
_HEX_32: Final = re.compile(r"[0-9a-f]{32}")
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_IOREG_LINE: Final = re.compile(r'"(IOPlatformUUID|IOPlatformSerialNumber)" = "([^"\n]*)"')
_ETHERNET: Final = 1
_FROM_HARDWARE: Final = 0
_VOLATILE: Final = frozenset({"tmpfs", "ramfs", "rootfs", "overlay", "overlayfs", "aufs"})
"""Filesystems that may be new at each start."""
_SAME_EVERYWHERE: Final = frozenset(
    {
        "none", "n/a", "na", "not specified", "not applicable", "not available", "default string", "default", "empty",
        "to be filled by o.e.m.", "to be filled by oem", "o.e.m.", "oem", "unknown", "invalid", "uninitialized",
        "base board serial number", "system serial number", "chassis serial number", "serial number", "0123456789",
        "123456789", "1234567890", "12345678", "03000200-0400-0500-0006-000700080009",
        "00020003-0004-0005-0006-000700080009", "12345678-1234-5678-90ab-cddeefaabbcc",
    }
)  # fmt: skip
"""What makers leave in place of a serial number or a UUID."""
# Names under /dev/disk/by-id that have the maker's serial number come before those of the World Wide Name, which newer
# kernels leave away for drives that are known to have it wrong.
_DISK_ORDER: Final = ("nvme-", "ata-", "mmc-", "scsi-S", "virtio-", "wwn-", "scsi-")
_DISK_SKIPPED: Final = re.compile(
    r"^(?:scsi-0|usb-|nvme-(?:eui|nvme|uuid)\.)|QEMU|Google|nvme_card|MSFT_NVMe|Microsoft_NVMe|(?:wwn-0x|scsi-3)0+$"
)
"""Names without a serial number, of disks that others have too, and of disks that can be unplugged."""
_MIN_DISK_CHARS: Final = 8
_NVME_NAMESPACE: Final = re.compile(r"_[0-9]{1,3}$")


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact: what it is called, where it comes from, its value, or in `why_not` why it does not identify."""

    name: str
    source: str
    value: str = ""
    why_not: str = ""


def own_facts(facts: MachineFacts) -> Iterator[Fact]:
    """What the machine says of itself."""
    if facts.platform == "darwin":
        said = dict(_IOREG_LINE.findall(facts.ioreg.text))
        problem = facts.ioreg.problem
        yield _uuid("platform_uuid", "IOPlatformUUID", Reading(said.get("IOPlatformUUID", ""), problem))
        yield _serial("IOPlatformSerialNumber", Reading(said.get("IOPlatformSerialNumber", ""), problem), "Apple")
    elif facts.platform == "win32":
        yield _uuid("machine_guid", shape.MACHINE_GUID, facts.registry.get(shape.MACHINE_GUID, Reading()))
    elif facts.platform == "linux":
        yield from _linux(facts)


def is_wsl(facts: MachineFacts) -> bool:
    """Whether this is Linux inside Windows."""
    release = text_of(facts, shape.KERNEL_RELEASE).lower()
    return shape.WSL_DISTRO in facts.environment or "microsoft" in release


def text_of(facts: MachineFacts, path: str) -> str:
    return facts.files.get(path, Reading()).text.strip(" \t\r\n\0")


def _linux(facts: MachineFacts) -> Iterator[Fact]:
    yield _machine_id(facts)
    if is_wsl(facts):
        why = "in WSL it is of a virtual machine that Windows makes anew at each start"
        yield from (Fact(name, source, why_not=why) for name, source in _HARDWARE)
    else:
        yield _uuid("product_uuid", shape.PRODUCT_UUID, facts.files.get(shape.PRODUCT_UUID, Reading()))
        if shape.BOARD_SERIAL in facts.files or shape.DEVICE_TREE_SERIAL not in facts.files:
            serial = facts.files.get(shape.BOARD_SERIAL, Reading())
            yield _serial(shape.BOARD_SERIAL, serial, text_of(facts, shape.BOARD_VENDOR))
        else:
            yield _serial(shape.DEVICE_TREE_SERIAL, facts.files[shape.DEVICE_TREE_SERIAL], "device-tree")
        yield _disk(facts.root_disks)
        yield _mac(facts.nics)
    if facts.cpu_model:
        yield Fact("cpu_model", "/proc/cpuinfo", why_not="all machines with this processor have the same")


_HARDWARE: Final = (
    ("product_uuid", shape.PRODUCT_UUID), ("board_serial", shape.BOARD_SERIAL), ("root_disk", "/dev/disk/by-id"),
    ("mac", "/sys/class/net"),
)  # fmt: skip


def _machine_id(facts: MachineFacts) -> Fact:
    source = shape.MACHINE_ID if shape.MACHINE_ID in facts.files else shape.DBUS_MACHINE_ID
    reading = facts.files.get(source)
    if reading is None:
        return Fact("machine_id", shape.MACHINE_ID, why_not="there is none")
    if reading.problem:
        return Fact("machine_id", source, why_not=reading.problem)
    value = text_of(facts, source).lower()
    if not _HEX_32.fullmatch(value) or is_left_blank(value):
        return Fact("machine_id", source, why_not="it is empty, or not set up yet")
    # What lies nearest above the file is what keeps it.
    point = max((point for point in facts.mounts if _covers(point, source)), key=len, default="")
    kind = facts.mounts[point].kind if point else ""
    if kind in _VOLATILE:
        return Fact("machine_id", source, why_not=f"it is on {kind} ({point}), so it may be new at each start")
    return Fact("machine_id", source, value)


def _covers(point: str, path: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")


def is_left_blank(text: str) -> bool:
    """Whether a serial number or UUID is one of those that many machines have."""
    value = text.casefold()
    return value in _SAME_EVERYWHERE or len(set(value) - set("-:. ")) <= 2


def _judged(name: str, source: str, reading: Reading, value: str, *, is_good: bool) -> Fact:
    if reading.problem:
        return Fact(name, source, why_not=reading.problem)
    if not value:
        return Fact(name, source, why_not="there is none")
    if not is_good or is_left_blank(value):
        return Fact(name, source, why_not="the maker left it blank, so many machines have the same")
    return Fact(name, source, value)


def _uuid(name: str, source: str, reading: Reading) -> Fact:
    # Kernels differ in the case of the letters.
    value = reading.text.strip(" \t\r\n\0{}").lower()
    return _judged(name, source, reading, value, is_good=_UUID.fullmatch(value) is not None)


def _serial(source: str, reading: Reading, maker: str) -> Fact:
    """A serial number is unique for its maker only, so the maker is a part of it."""
    value = reading.text.strip(" \t\r\n\0")
    fact = _judged("board_serial", source, reading, value, is_good=len(value) >= _MIN_SERIAL_CHARS)
    return Fact(fact.name, fact.source, f"{maker}/{value}") if fact.value else fact


def _disk(disks: tuple[Disk, ...]) -> Fact:
    source = "/dev/disk/by-id"
    if len(disks) != 1:
        why = "the root filesystem is on several disks" if disks else "no disk is known below the root filesystem"
        return Fact("root_disk", source, why_not=why)
    for prefix in _DISK_ORDER:
        names = [name for name in disks[0].ids if name.startswith(prefix) and _names_one_disk(name, prefix)]
        if names:
            # Newer versions of udev add the namespace of an NVMe drive in a second name beside the first.
            value = min(_NVME_NAMESPACE.sub("", name) if prefix == "nvme-" else name for name in names)
            return Fact("root_disk", f"{source} ({disks[0].name})", value)
    return Fact("root_disk", f"{source} ({disks[0].name})", why_not="the disk has no serial number of its own")


def _names_one_disk(name: str, prefix: str) -> bool:
    return len(name) >= len(prefix) + _MIN_DISK_CHARS and not _DISK_SKIPPED.search(name)


def _mac(nics: tuple[Nic, ...]) -> Fact:
    """One address, so that a server with many ports is not mostly its network card.

    A port of the board comes first, since others come and go; then the lowest address, which, unlike names and places,
    does not change when a card is added elsewhere.
    """
    judged = {nic.name: _address(nic) for nic in nics}
    usable = [nic for nic in nics if judged[nic.name]]
    if not usable:
        return Fact("mac", "/sys/class/net", why_not="no network card of this machine has a permanent address")
    chosen = min(usable, key=lambda nic: (not nic.onboard, judged[nic.name]))
    # Some interfaces are named by their address, which is shown nowhere.
    named = judged[chosen.name].replace(":", "") in chosen.name
    return Fact("mac", "/sys/class/net" if named else f"/sys/class/net/{chosen.name}", judged[chosen.name])


def _address(nic: Nic) -> str:
    """The permanent address of a card that is a part of the machine; empty for every other interface."""
    if nic.hardware_type != _ETHERNET or "/virtual/" in nic.path or "/usb" in nic.path or nic.removable:
        return ""
    # Privacy settings and bonds change the address in use, and not that of the hardware.
    for text in (nic.permanent_address, nic.address if nic.assigned == _FROM_HARDWARE else ""):
        address = text.lower()
        if not _MAC.fullmatch(address) or address == "00:00:00:00:00:00":
            continue
        first = int(address[:2], 16)
        is_group, is_local = first & 1, first & 2
        return "" if is_group or is_local else address
    return ""
