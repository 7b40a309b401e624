"""What the client reads of a machine: a tree of files as Linux has it, and this machine itself."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import lictor
import pytest
from lictor import AsyncLictor, Lictor, NoStableIdentityError
from lictor._core.fingerprint import fingerprint_of
from lictor._core.machine_facts import collect
from lictor._core.machine_shape import Disk, Mount, Nic, Reading

MACHINE_ID = "6f1c2d0b9a7e4f35b8d21e90c4a7735d"
MOUNTINFO = """\
21 27 0:19 / /proc rw,nosuid - proc proc rw
27 1 {device} / / rw,relatime shared:1 - {kind} {source} rw
30 27 0:26 / /etc rw - overlay below rw,hidden=1
31 27 8:3 / /etc rw,relatime master:1 optional:2 - ext4 /dev/sda3 rw,errors=remount-ro
40 27 0:44 / /etc/hosts rw - tmpfs tmpfs rw
a line that is none
"""


@pytest.fixture(name="root")
def _root(tmp_path: Path) -> Path:
    """A machine whose root is an encrypted volume on the third partition of an NVMe drive."""
    root = tmp_path / "root"

    def write(path: str, text: str) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)

    def link(path: str, target: str) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(target)

    write("etc/machine-id", MACHINE_ID + "\n")
    write("proc/self/mountinfo", MOUNTINFO.format(device="253:1", kind="ext4", source="/dev/mapper/root"))
    write("proc/cpuinfo", "processor\t: 0\nmodel name\t: A Processor 9\n" * 2)
    write("proc/1/cgroup", "0::/init.scope\n")
    write("sys/class/dmi/id/board_vendor", "LENOVO\n")
    disk = "devices/pci0000:00/0000:00:1d.0/nvme/nvme0/nvme0n1"
    write(f"sys/{disk}/nvme0n1p3/partition", "3\n")
    (root / f"sys/{disk}/nvme0n1p3/slaves").mkdir()
    write("sys/devices/virtual/block/dm-0/slaves/.keep", "")
    (root / "sys/devices/virtual/block/dm-0/slaves/.keep").unlink()
    link("sys/devices/virtual/block/dm-0/slaves/nvme0n1p3", f"../../../../../{disk}/nvme0n1p3")
    link("sys/devices/virtual/block/dm-1/slaves/dm-0", "../../dm-0")
    link("sys/dev/block/253:1", "../../devices/virtual/block/dm-1")
    link("sys/dev/block/259:3", f"../../{disk}/nvme0n1p3")
    for name, target in {
        "nvme-A_SERIAL9876": "nvme0n1",
        "nvme-A_SERIAL9876-part3": "nvme0n1p3",
        "ata-B": "sda",
    }.items():
        link(f"dev/disk/by-id/{name}", f"../../{target}")
    card = "devices/pci0000:00/0000:00:1f.6"
    for name, value in {"address": "d8:bb:c1:4a:07:31", "addr_assign_type": "0", "type": "1"}.items():
        write(f"sys/{card}/net/eno1/{name}", value + "\n")
    write(f"sys/{card}/acpi_index", "1\n")
    write(f"sys/{card}/removable", "removable\n")
    link(f"sys/{card}/net/eno1/device", "../../../0000:00:1f.6")
    link("sys/class/net/eno1", f"../../{card}/net/eno1")
    for name, value in {"address": "02:42:00:00:00:01", "addr_assign_type": "3", "type": "1"}.items():
        write(f"sys/devices/virtual/net/docker0/{name}", value + "\n")
    link("sys/class/net/docker0", "../../devices/virtual/net/docker0")
    return root


def test_everything_is_read_where_linux_has_it(root: Path) -> None:
    facts = collect(root, {"WSL_DISTRO_NAME": "", "HOME": "/root", "HOSTNAME": "secret-host"}, "linux")
    assert facts.files == {
        "/etc/machine-id": Reading(MACHINE_ID + "\n"),
        "/proc/1/cgroup": Reading("0::/init.scope\n"),
        "/sys/class/dmi/id/board_vendor": Reading("LENOVO\n"),
    }
    assert facts.mounts == {
        "/": Mount("ext4", "/dev/mapper/root", "rw"),
        "/etc": Mount("ext4", "/dev/sda3", "rw,errors=remount-ro"),
    }
    assert facts.root_disks == (Disk("nvme0n1", ("nvme-A_SERIAL9876",)),)
    assert facts.nics == (
        Nic("docker0", "/sys/devices/virtual/net/docker0", 1, "02:42:00:00:00:01", 3),
        Nic("eno1", "/sys/devices/pci0000:00/0000:00:1f.6/net/eno1", 1, "d8:bb:c1:4a:07:31", 0, "", True, True),
    )
    assert (facts.cpu_model, facts.environment, facts.identity_file) == ("A Processor 9", {}, None)
    assert "secret-host" not in repr(facts)
    assert list(fingerprint_of(facts).components) == ["machine_id", "root_disk"]


def test_a_root_on_a_plain_partition_is_on_its_disk(root: Path) -> None:
    text = MOUNTINFO.format(device="259:3", kind="xfs", source="/dev/nvme0n1p3")
    (root / "proc/self/mountinfo").write_text(text)
    assert collect(root, {}, "linux").root_disks == (Disk("nvme0n1", ("nvme-A_SERIAL9876",)),)


def test_btrfs_is_on_the_disk_of_its_source(root: Path) -> None:
    """It has a device number of its own, so that of what it names counts; here a device that every machine has."""
    (root / "dev/nvme0n1p3").symlink_to("/dev/null")
    number = Path("/dev/null").stat().st_rdev
    (root / f"sys/dev/block/{os.major(number)}:{os.minor(number)}").symlink_to(root / "sys/dev/block/259:3")
    (root / "proc/self/mountinfo").write_text(MOUNTINFO.format(device="0:31", kind="btrfs", source="/dev/nvme0n1p3"))
    assert collect(root, {}, "linux").root_disks == (Disk("nvme0n1", ("nvme-A_SERIAL9876",)),)


@pytest.mark.parametrize(("kind", "source"), [("overlay", "overlay"), ("btrfs", "/dev/nowhere"), ("tmpfs", "tmpfs")])
def test_a_root_on_no_disk_has_none(root: Path, kind: str, source: str) -> None:
    (root / "proc/self/mountinfo").write_text(MOUNTINFO.format(device="0:31", kind=kind, source=source))
    assert collect(root, {}, "linux").root_disks == ()


def test_a_root_on_two_disks_names_both(root: Path) -> None:
    (root / "sys/devices/pci0000:00/sda").mkdir()
    (root / "sys/devices/virtual/block/dm-0/slaves/sda").symlink_to("../../../../pci0000:00/sda")
    assert [disk.name for disk in collect(root, {}, "linux").root_disks] == ["nvme0n1", "sda"]


def test_an_empty_machine_is_read_without_an_error(tmp_path: Path) -> None:
    facts = collect(tmp_path, {}, "linux")
    assert (facts.files, facts.mounts, facts.nics, facts.root_disks, facts.cpu_model) == ({}, {}, (), (), "")
    with pytest.raises(NoStableIdentityError, match="NO_MACHINE_IDENTITY") as refusal:
        fingerprint_of(facts)
    assert "systemd-machine-id-setup" in refusal.value.remedy


def test_what_cannot_be_read_says_why(root: Path) -> None:
    (root / "sys/class/dmi/id/product_uuid").mkdir()
    facts = collect(root, {}, "linux")
    assert facts.files["/sys/class/dmi/id/product_uuid"] == Reading(problem="Is a directory")
    (use,) = (use for use in fingerprint_of(facts).used if use.name == "product_uuid")
    assert (use.used, use.why) == (False, "Is a directory")


def test_what_this_user_may_not_read_says_so(root: Path) -> None:
    secret = root / "sys/class/dmi/id/product_uuid"
    secret.write_text("4c4c4544-0051-3210-8052-b4c04f4a4b33\n")
    secret.chmod(0)
    is_root = os.geteuid() == 0
    expected = Reading(secret.read_text()) if is_root else Reading(problem="Permission denied")
    assert collect(root, {}, "linux").files["/sys/class/dmi/id/product_uuid"] == expected


def test_a_named_file_is_read_and_known_to_be_a_mount_or_not(root: Path) -> None:
    own = root / "machine-id"
    own.write_text("0f6c7f0e-54f4-4d0c-a31e-6f8a5a5a2b11\n")
    for platform in ("linux", "win32", "darwin", "freebsd14"):
        file = collect(root, {"LICTOR_MACHINE_ID_FILE": str(own)}, platform).identity_file
        assert file is not None
        assert (file.reading.text, file.on_root) == ("0f6c7f0e-54f4-4d0c-a31e-6f8a5a5a2b11\n", True)
    elsewhere = collect(root, {"LICTOR_MACHINE_ID_FILE": "/proc/sys/kernel/random/boot_id"}, "linux").identity_file
    assert elsewhere is not None
    assert (elsewhere.on_root, elsewhere.reading.problem) == (False, "")
    missing = collect(root, {"LICTOR_MACHINE_ID_FILE": str(own) + "x"}, "linux").identity_file
    assert missing is not None
    assert missing.reading == Reading(problem="No such file or directory")


def test_what_cannot_be_asked_on_another_system_says_so(root: Path) -> None:
    if sys.platform == "darwin":
        assert "IOPlatformUUID" in collect(root, {}, "darwin").ioreg.text
    else:
        assert collect(root, {}, "darwin").ioreg.problem.startswith("/usr/sbin/ioreg: ")
    if sys.platform != "win32":
        assert collect(root, {}, "win32").registry == {}


def test_this_machine_is_read_twice_alike() -> None:
    one, other = collect(), collect()
    assert (one.files, one.mounts, one.root_disks) == (other.files, other.mounts, other.root_disks)
    if sys.platform == "linux":
        assert one.platform == "linux"
        assert "/proc/sys/kernel/osrelease" in one.files
        assert "/" in one.mounts


def test_the_clients_and_the_package_make_one_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LICTOR_MACHINE_ID_FILE", raising=False)
    monkeypatch.delenv("LICTOR_POD_UID", raising=False)
    monkeypatch.setenv("LICTOR_NODE_UID", "b1e0c3d2-77aa-4c55-9e21-6f0d4a8c2b13")
    blocking, waiting = Lictor(api_key="sk_test_x"), AsyncLictor(api_key="sk_test_x")
    made = lictor.fingerprint(product="PROAPP")
    assert made == blocking.fingerprint(product="PROAPP") == waiting.fingerprint(product="PROAPP")
    assert list(made.components) == ["node_uid"]
    assert blocking.fingerprint() == lictor.fingerprint() != made
    monkeypatch.setenv("LICTOR_NODE_UID", "c2f1d4e3-88bb-4d66-8f32-7a1e5b9d3c24")
    assert blocking.fingerprint(product="PROAPP") == made, "a client reads its machine once"
    assert lictor.fingerprint(product="PROAPP") != made
    blocking.close()


def test_a_client_asks_again_after_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LICTOR_MACHINE_ID_FILE", raising=False)
    monkeypatch.delenv("LICTOR_POD_UID", raising=False)
    monkeypatch.setenv("LICTOR_NODE_UID", "short")
    client = Lictor(api_key="sk_test_x")
    with pytest.raises(NoStableIdentityError, match="IDENTITY_UNUSABLE: LICTOR_NODE_UID is set, and"):
        client.fingerprint()
    monkeypatch.setenv("LICTOR_NODE_UID", "b1e0c3d2-77aa-4c55-9e21-6f0d4a8c2b13")
    assert client.fingerprint().components
    client.close()


def test_a_refusal_is_one_of_the_clients_errors_and_survives_a_pickle() -> None:
    error = NoStableIdentityError("no", reason="NO_MACHINE_IDENTITY", remedy="Do this")
    assert isinstance(error, lictor.LictorError)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.reason, copy.remedy) == (str(error), "NO_MACHINE_IDENTITY", "Do this")
    assert str(error) == "NO_MACHINE_IDENTITY: no. Do this."
