"""Machines before and after what happens to machines: the same fingerprint, enough of it, or a stated refusal."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lictor import Fingerprint, NoStableIdentityError
from lictor._core.convert import machine_identity
from lictor._core.fingerprint import fingerprint_of
from lictor._core.machine_identity import ANCHORS
from lictor._core.machine_shape import MachineFacts, Nic, Reading

from shared.crypto.fingerprints import FingerprintHasher
from shared.crypto.root_secret import RootSecret
from shared.rules.fingerprints import MatchingRule, check_fingerprint, check_set, match
from shared.tenancy import Mode, Tenant
from tests.helpers.machine_facts import FactSet, all_sets

SETS = all_sets()
GOOD = [one for one in SETS if not one.refusal]
REFUSED = [one for one in SETS if one.refusal]
PAIRS = [one for one in GOOD if one.like is not None and not one.like.refusal]
HASHER = FingerprintHasher(RootSecret(((1, bytes(range(32))),)))
TENANT = Tenant("acc_1", Mode.LIVE)
ADDRESSES = st.integers(0, 2**48 - 1).map(lambda number: ":".join(f"{byte:02x}" for byte in number.to_bytes(6, "big")))


def named(name: str, *, in_file: str) -> FactSet:
    return next(one for one in SETS if (one.file, one.about) == (in_file, name))


def raw_values(facts: MachineFacts) -> set[str]:
    """Everything that was read and is long enough to be found by chance nowhere else."""
    values = {reading.text for reading in (*facts.files.values(), *facts.registry.values(), facts.ioreg)}
    values |= {text for nic in facts.nics for text in (nic.address, nic.permanent_address)}
    values |= {name for disk in facts.root_disks for name in disk.ids}
    values |= {facts.cpu_model, facts.identity_file.reading.text if facts.identity_file else ""}
    values |= {value for name, value in facts.environment.items() if name.endswith("_UID")}
    words = {word for value in values for word in re.split(r"[\s\0\"]+", value)}
    return {word for word in words if re.fullmatch(r"(?=.*\d)[^/].{7,}", word)} - {"00:00:00:00:00:00"}


@pytest.mark.parametrize("one", GOOD, ids=str)
def test_a_machine_with_an_identity_has_a_fingerprint_that_says_what_it_used(one: FactSet) -> None:
    made = fingerprint_of(one.facts)
    if one.uses is not None:
        assert tuple(made.components) == one.uses
    assert [use.name for use in made.used if use.used] == list(made.components)
    assert all(use.why and use.source for use in made.used)
    assert next(use for use in made.used if "the text is made of it" in use.why).name in ANCHORS
    assert len({use.name for use in made.used}) == len(made.used)


@pytest.mark.parametrize("one", GOOD, ids=str)
def test_the_service_takes_what_the_client_makes(one: FactSet) -> None:
    made = fingerprint_of(one.facts)
    assert re.fullmatch(r"fp1_[0-9a-f]{64}", made.text)
    assert not list(check_fingerprint(made.text, "fingerprint"))
    assert not list(check_set(list(made.components.items()), "components"))


@pytest.mark.parametrize("one", GOOD, ids=str)
def test_no_value_of_the_machine_is_in_what_is_made(one: FactSet) -> None:
    shown = repr(fingerprint_of(one.facts, product="PROAPP"))
    assert not [value for value in raw_values(one.facts) if value.lower() in shown.lower()]


@pytest.mark.parametrize("one", REFUSED, ids=str)
def test_a_machine_without_one_is_refused_for_a_reason_with_what_to_do(one: FactSet) -> None:
    with pytest.raises(NoStableIdentityError) as refusal:
        fingerprint_of(one.facts)
    assert (refusal.value.reason, refusal.value.code) == (one.refusal, "FAILED_PRECONDITION")
    assert refusal.value.remedy in str(refusal.value)
    assert one.refusal in str(refusal.value)
    assert not [value for value in raw_values(one.facts) if value.lower() in str(refusal.value).lower()]


@pytest.mark.parametrize("one", PAIRS, ids=str)
def test_what_stays_and_what_still_matches_after_a_change(one: FactSet) -> None:
    assert one.like is not None
    before, after = fingerprint_of(one.like.facts), fingerprint_of(one.facts)
    assert (after.text == before.text) is one.same_text
    known = {HASHER.hash(TENANT, value, name) for name, value in before.components.items()}
    presented = HASHER.candidates_of(TENANT, after.components)
    assert {rule.value: match(rule, presented, known).is_met for rule in MatchingRule} == one.rules


def test_the_sets_cover_what_is_promised() -> None:
    reasons = {"CONTAINER_WITHOUT_IDENTITY", "IDENTITY_UNUSABLE", "IDENTITY_AMBIGUOUS", "NO_MACHINE_IDENTITY"}
    assert {one.refusal for one in REFUSED} == reasons
    assert {name for one in GOOD for name in fingerprint_of(one.facts).components} == {*ANCHORS, "root_disk", "mac"}
    for one in SETS:
        assert one.refusal or one.uses is not None or one.like is not None, one
        assert one.refusal or one.like is None or one.like.refusal or one.rules, one


ROWS = {
    "reboot": ("linux_laptop", "after a reboot: other containers, and Wi-Fi with a random address of the day"),
    "another network card": ("linux_laptop", "with a new network card, whose address is lower"),
    "a server whose firmware": ("linux_server", "with a new network card, whose address is lower"),
    "root runs it": ("linux_laptop", "by root, who can read more"),
    "an ordinary user runs it": ("linux_server", "by an ordinary user, who can read less"),
    "another disk, the system copied": ("linux_laptop", "with another drive, onto which the system was copied"),
    "another disk, the system installed": ("linux_laptop", "installed anew on another drive"),
    "the disk, put into": ("linux_server", "with its disk in another server of the kind"),
    "a clone of a virtual machine": ("virtual_machine", "a clone that kept the machine id"),
    "a clone with a machine id": ("virtual_machine", "a clone with a machine id of its own"),
    "`wsl --shutdown`": ("wsl", "after `wsl --shutdown` and an update"),
    "Windows installed anew": ("windows", "installed anew"),
    "another logic board": ("macos", "with another logic board, which got the old serial number"),
}


def test_the_page_says_what_changes_a_fingerprint_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "fingerprints.md").read_text()
    table = page.partition("| what happens |")[2].partition("\n\n")[0].splitlines()[2:]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert len(lines) == len(ROWS)
    for (start, (file, about)), (words, *cells) in zip(ROWS.items(), lines, strict=True):
        one = named(about, in_file=file)
        met = ["yes" if one.rules[rule.value] else "no" for rule in MatchingRule]
        assert words.startswith(start)
        assert cells == ["same" if one.same_text else "other", *met], words


@pytest.mark.parametrize("one", GOOD, ids=str)
def test_products_have_nothing_in_common(one: FactSet) -> None:
    plain, pro, lite = (fingerprint_of(one.facts, product=product) for product in ("", "PROAPP", "LITE"))
    values = [value for made in (plain, pro, lite) for value in (made.text[4:], *made.components.values())]
    assert len(set(values)) == len(values) == 3 * (1 + len(plain.components))
    assert pro == fingerprint_of(one.facts, product="PROAPP")


@pytest.mark.parametrize("one", GOOD, ids=str)
def test_the_order_in_which_things_were_found_does_not_matter(one: FactSet) -> None:
    facts = one.facts
    turned = MachineFacts(
        facts.platform,
        dict(list(facts.environment.items())[::-1]),
        dict(list(facts.files.items())[::-1]),
        dict(list(facts.mounts.items())[::-1]),
        facts.identity_file,
        facts.nics[::-1],
        tuple(type(disk)(disk.name, disk.ids[::-1]) for disk in facts.root_disks[::-1]),
        facts.cpu_model,
        facts.ioreg,
        facts.registry,
    )
    assert fingerprint_of(turned) == fingerprint_of(facts)


def with_nics(*nics: Nic) -> Fingerprint:
    facts = named("as installed", in_file="linux_server").facts
    files = {**facts.files, "/proc/sys/kernel/osrelease": Reading("6.1.0\n")}
    return fingerprint_of(MachineFacts("linux", files=files, mounts=facts.mounts, nics=nics))


BOARD_NIC = Nic("eno1", "/sys/devices/pci0000:00/0000:00:1f.6/net/eno1", 1, "d8:bb:c1:4a:07:31", 0, onboard=True)


@given(
    ADDRESSES, st.integers(0, 3), st.sampled_from(["/sys/devices/virtual/net/x", "/sys/devices/pci0/usb2/2-1/net/x"])
)
def test_no_virtual_or_pluggable_interface_changes_anything(address: str, assigned: int, path: str) -> None:
    assert with_nics(BOARD_NIC, Nic("x", path, 1, address, assigned, address)) == with_nics(BOARD_NIC)
    assert "mac" not in with_nics(Nic("x", path, 1, address, assigned, address)).components


@given(ADDRESSES)
def test_an_address_that_somebody_gave_is_never_one_of_the_hardware(address: str) -> None:
    path = "/sys/devices/pci0000:00/0000:00:03.0/net/x"
    assert "mac" not in with_nics(Nic("x", path, 1, address, 3)).components
    made = with_nics(Nic("x", path, 1, address, 3, address)).components
    is_local_or_group = bool(int(address[:2], 16) & 3)
    assert ("mac" in made) == (not is_local_or_group and address != "00:00:00:00:00:00")


@given(ADDRESSES, st.booleans())
def test_what_an_interface_uses_now_does_not_matter_where_its_own_is_known(address: str, up: bool) -> None:
    own = BOARD_NIC.address
    made = with_nics(Nic("eno1", BOARD_NIC.path, 1, address, 3 if up else 0, own, onboard=True))
    assert made.text == with_nics(BOARD_NIC).text
    assert made.components == with_nics(BOARD_NIC).components


@given(st.text(max_size=300))
def test_any_named_identity_is_taken_or_refused_and_never_shown(text: str) -> None:
    facts = MachineFacts("linux", {"LICTOR_POD_UID": text, "KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    try:
        made = fingerprint_of(facts)
    except NoStableIdentityError as refusal:
        assert refusal.reason == "IDENTITY_UNUSABLE"
    else:
        assert list(made.components) == ["pod_uid"]
        assert 8 <= len(text.strip()) <= 256 or "\0" in text


def test_a_machine_is_named_by_one_text_or_by_its_components() -> None:
    made = fingerprint_of(named("as installed", in_file="linux_laptop").facts)
    sent = machine_identity(made).fingerprints.fingerprints
    assert [(one.name, one.fingerprint) for one in sent] == list(made.components.items())
    assert machine_identity("my-own-fingerprint").fingerprint == "my-own-fingerprint"
    assert machine_identity(made.text).fingerprint == str(made) == made.text
    (one,) = machine_identity({"disk": "12345678"}).fingerprints.fingerprints
    assert (one.name, one.fingerprint) == ("disk", "12345678")
    assert machine_identity({}).WhichOneof("identity") == "fingerprints"


def test_an_interface_that_is_named_by_its_address_is_not_shown_by_it() -> None:
    made = with_nics(Nic("wlxd8bbc14a0731", "/sys/devices/pci0000:00/0000:00:14.3/net/w", 1, "d8:bb:c1:4a:07:31", 0))
    assert "mac" in made.components
    assert "d8bbc14a0731" not in repr(made)


def test_fingerprints_stay_what_they_are() -> None:
    """Machines are activated with them: another way of making them would be another machine for everyone."""
    made = fingerprint_of(named("as installed", in_file="linux_server").facts, product="PROAPP")
    assert made.text == "fp1_feba7b3c460397b7c75050ab2c3752330c7aa25fd70cd3511fab3a0923c5527f"
    assert made.components["machine_id"] == "25105aec28f2cd4782f87897868cb7d4d6fd64aff914775c9b4e441fc10553b4"
    assert made.components["product_uuid"] == "8e8b070bc7fd060e61539ff9fb17c707096dcce14ee04ce617d523f2bca6537c"
    assert made.components["board_serial"] == "9d117c8f5af8ad6af2439fe19c4a4bc3e7b5c7d3f0a1d5a7536c69db33a5bb73"
    assert made.components["root_disk"] == "631f1c2808341c12c6b2f9e0a440f806be415c7da0890afbe325099074dddc1e"
    assert made.components["mac"] == "192458859c26e0c6a4ef6961334375f1f0ea2c092a6bc680c7b22e5ab9631a22"
    placed = (b"lictor/fingerprint/1", b"component", b"PROAPP", b"mac", b"3c:ec:ef:0a:12:40")
    by_hand = hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in placed))
    assert made.components["mac"] == by_hand.hexdigest()
