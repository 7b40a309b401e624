"""What may be known of a machine, as it was read and before anything is made of it. Pure data.

The names of files, variables and registry values are here, so that what is read and what is judged are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

MACHINE_ID: Final = "/etc/machine-id"
DBUS_MACHINE_ID: Final = "/var/lib/dbus/machine-id"
PRODUCT_UUID: Final = "/sys/class/dmi/id/product_uuid"
BOARD_SERIAL: Final = "/sys/class/dmi/id/board_serial"
BOARD_VENDOR: Final = "/sys/class/dmi/id/board_vendor"
DEVICE_TREE_SERIAL: Final = "/proc/device-tree/serial-number"
KERNEL_RELEASE: Final = "/proc/sys/kernel/osrelease"
INIT_CGROUP: Final = "/proc/1/cgroup"
CONTAINER_FILES: Final = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")
FILES: Final = (
    MACHINE_ID, DBUS_MACHINE_ID, PRODUCT_UUID, BOARD_SERIAL, BOARD_VENDOR, DEVICE_TREE_SERIAL, KERNEL_RELEASE,
    INIT_CGROUP, *CONTAINER_FILES,
)  # fmt: skip
MOUNT_POINTS: Final = ("/", "/etc", MACHINE_ID, "/var", "/var/lib", "/var/lib/dbus")

IDENTITY_FILE: Final = "LICTOR_MACHINE_ID_FILE"
NODE_UID: Final = "LICTOR_NODE_UID"
POD_UID: Final = "LICTOR_POD_UID"
CONTAINER_VARIABLES: Final = (
    "KUBERNETES_SERVICE_HOST", "ECS_CONTAINER_METADATA_URI_V4", "AWS_LAMBDA_FUNCTION_NAME", "K_SERVICE",
    "CONTAINER_APP_NAME",
)  # fmt: skip
CONTAINER_KIND: Final = "container"
WSL_DISTRO: Final = "WSL_DISTRO_NAME"
VARIABLES: Final = (IDENTITY_FILE, NODE_UID, POD_UID, *CONTAINER_VARIABLES, CONTAINER_KIND, WSL_DISTRO)

MACHINE_GUID: Final = r"SOFTWARE\Microsoft\Cryptography\MachineGuid"
CONTAINER_TYPE: Final = r"SYSTEM\CurrentControlSet\Control\ContainerType"
REGISTRY_VALUES: Final = (MACHINE_GUID, CONTAINER_TYPE)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one source said, or in `problem` why it could not be read."""

    text: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class IdentityFile:
    """The file that LICTOR_MACHINE_ID_FILE names. `on_root`: it is on the filesystem of `/`, so it is no mount."""

    path: str
    reading: Reading
    on_root: bool


@dataclass(frozen=True, slots=True)
class Mount:
    """What is mounted in a place: the filesystem's type, its source, and the options of the filesystem."""

    kind: str
    source: str = ""
    options: str = ""


@dataclass(frozen=True, slots=True)
class Nic:
    """A network interface, as Linux shows it.

    Attributes:
        name: `eth0`.
        path: Where the kernel has it, `/sys/devices/...`.
        hardware_type: ARPHRD_*; 1 is Ethernet, which Wi-Fi is too.
        address: What it uses now.
        assigned: Where that comes from (`addr_assign_type`); 0 is the hardware.
        permanent_address: What the hardware says, empty where it does not say.
        onboard: Whether the firmware lists it as a part of the board.
        removable: Whether the kernel says that it can be taken off while the machine runs.
    """

    name: str
    path: str
    hardware_type: int
    address: str
    assigned: int
    permanent_address: str = ""
    onboard: bool = False
    removable: bool = False


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk below the root filesystem, and its names under /dev/disk/by-id."""

    name: str
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """Everything that was read. What is not there is absent from the mappings.

    `platform` is Python's `sys.platform`. There is no host name here, and no address of the network.
    """

    platform: str
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    files: Mapping[str, Reading] = field(default_factory=dict[str, Reading])
    mounts: Mapping[str, Mount] = field(default_factory=dict[str, Mount])
    identity_file: IdentityFile | None = None
    nics: tuple[Nic, ...] = ()
    root_disks: tuple[Disk, ...] = ()
    cpu_model: str = ""
    ioreg: Reading = field(default_factory=Reading)
    """macOS: what `ioreg` says of the platform."""
    registry: Mapping[str, Reading] = field(default_factory=dict[str, Reading])
    """Windows: values under HKEY_LOCAL_MACHINE, by their path."""
