"""What a client believes of a file offline: its time to the microsecond, its number, its machine, and nothing older."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lictor
import pytest
from lictor import LicenseFileError, VerifiedFile, verify_license_file, verify_machine_file
from lictor._core import offline_errors as errors
from lictor._core.offline_format import FileKind, FileSecret, fingerprint_mark, moment, moment_from
from lictor.license.v1.token_service_pb2 import GetJsonWebKeySetResponse, JsonWebKey

from tests.helpers.offline import ENDS, FINGERPRINT, ISSUED, KEYS, LICENSE_KEY, US, jwk, payload, written

TOLERANCE = timedelta(minutes=5)
LATER = ISSUED + timedelta(days=1)


class Kept:
    """A memory that a test looks into."""

    def __init__(self, text: str | None = None) -> None:
        self.text = text

    def load(self) -> str | None:
        return self.text

    def save(self, text: str) -> None:
        self.text = text


def file(**more: Any) -> str:
    return written(payload(**more))


def verify(text: str, state: Any = None, now: datetime = LATER, **more: Any) -> VerifiedFile:
    return verify_license_file(text, keys=KEYS, state=state, now=now, **more)


def test_a_file_says_what_is_in_it() -> None:
    found = verify(written())
    assert (found.kind, found.file_id, found.product, found.mode) == ("LICENSE", "file_1", "pro-app", "TEST")
    assert (found.license_id, found.product_id, found.policy_id) == ("lic_1", "prod_1", "pol_1")
    assert (found.tier, found.features, found.customer_id, found.machine_id) == ("pro", (), None, None)
    assert (found.seq, found.revocation_epoch) == (7, 2)
    assert (found.server_time, found.not_before, found.expires_at) == (ISSUED, ISSUED, ENDS)
    assert found.payload == payload()


@pytest.mark.parametrize(
    ("now", "refusal"),
    [
        (ENDS - US, None),
        (ENDS, errors.FileExpired),
        (ENDS + US, errors.FileExpired),
        (ISSUED, None),
        (ISSUED - TOLERANCE, None),
        (ISSUED - TOLERANCE - US, errors.ClockSetBack),
    ],
)
def test_the_time_of_a_file_to_the_microsecond(now: datetime, refusal: type[LicenseFileError] | None) -> None:
    if refusal is None:
        assert verify(written(), now=now)
        return
    with pytest.raises(refusal):
        verify(written(), now=now)


def test_a_file_whose_time_has_not_come() -> None:
    begins = ISSUED + timedelta(days=3)
    text = file(not_before=moment(begins))
    for tolerance in (timedelta(0), TOLERANCE):
        assert verify(text, now=begins - tolerance, clock_tolerance=tolerance)
        with pytest.raises(errors.FileNotYetValid):
            verify(text, now=begins - tolerance - US, clock_tolerance=tolerance)


def test_without_tolerance_the_clock_may_not_be_a_microsecond_behind() -> None:
    assert verify(written(), now=ISSUED, clock_tolerance=timedelta(0))
    with pytest.raises(errors.ClockSetBack):
        verify(written(), now=ISSUED - US, clock_tolerance=timedelta(0))


def test_a_clock_that_is_set_back_after_a_verification_is_noticed() -> None:
    kept = Kept()
    verify(written(), kept, LATER)
    assert verify(written(), kept, LATER - TOLERANCE)
    with pytest.raises(errors.ClockSetBack):
        verify(written(), kept, LATER - TOLERANCE - US)
    assert verify(written(), kept, LATER), "what was refused is not remembered"


def test_a_file_that_was_seen_expired_stays_so_when_the_clock_is_set_back() -> None:
    kept = Kept()
    with pytest.raises(errors.FileExpired):
        verify(written(), kept, ENDS + timedelta(days=1))
    with pytest.raises(errors.ClockSetBack):
        verify(written(), kept, ENDS - timedelta(days=1))


def test_a_clock_that_was_ahead_once_does_not_refuse_the_next_file() -> None:
    """The newer file is proof of a time by itself."""
    kept = Kept()
    with pytest.raises(errors.FileExpired):
        verify(written(), kept, ISSUED + timedelta(days=36500))
    with pytest.raises(errors.ClockSetBack):
        verify(written(), kept, LATER)
    renewed = file(seq=8, server_time=moment(LATER), expires_at=moment(LATER + timedelta(days=14)))
    assert verify(renewed, kept, LATER).seq == 8


OLDER: dict[str, dict[str, Any]] = {
    "seq": {"seq": 6},
    "server_time": {"server_time": moment(ISSUED - US)},
    "revocation_epoch": {"revocation_epoch": 1},
    "a lower number with a later time": {"seq": 6, "server_time": moment(ISSUED + US)},
    "a later number with an earlier time": {"seq": 8, "server_time": moment(ISSUED - US)},
    "a later file from before a revocation": {"seq": 8, "server_time": moment(ISSUED + US), "revocation_epoch": 1},
}


@pytest.mark.parametrize("name", OLDER)
def test_what_is_older_than_what_was_seen_is_refused(name: str) -> None:
    kept = Kept()
    assert verify(file(**OLDER[name])), "it is a good file by itself"
    verify(written(), kept)
    before = kept.text
    with pytest.raises(errors.FileRolledBack):
        verify(file(**OLDER[name]), kept)
    assert kept.text == before
    assert verify(written(), kept), "the newest goes on"


def test_the_same_file_and_newer_ones_are_taken_again_and_again() -> None:
    kept = Kept()
    for seq in (7, 7, 8, 8, 20):
        assert verify(file(seq=seq), kept).seq == seq
    with pytest.raises(errors.FileRolledBack):
        verify(file(seq=19), kept)


def test_licenses_are_remembered_each_by_itself_and_revocations_by_product() -> None:
    kept = Kept()
    verify(file(seq=9, revocation_epoch=3), kept)
    other = {**payload()["license"], "license_id": "lic_2"}
    assert verify(file(license=other, seq=1, revocation_epoch=3), kept)
    with pytest.raises(errors.FileRolledBack, match="revoked"):
        verify(file(license=other, seq=2, revocation_epoch=2), kept)
    elsewhere = {**other, "product_id": "prod_2"}
    assert verify(file(license=elsewhere, seq=2, revocation_epoch=0), kept)


def test_the_memory_is_a_file_for_its_owner_alone_and_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state.json"
    verify(written(), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [found.name for found in path.parent.iterdir()] == ["state.json"]
    verify(file(seq=8), str(path))
    with pytest.raises(errors.FileRolledBack):
        verify(written(), path)
    assert LICENSE_KEY not in path.read_text()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"v": 2}', '{"v": 1, "files": {"x": {}}, "epochs": {}}'])
def test_a_damaged_memory_is_no_empty_one(text: str, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    with pytest.raises(errors.FileStateUnreadable):
        verify(written(), path)
    assert path.read_text() == text


def machine(text: str | None = None, fingerprint: str = FINGERPRINT, **more: Any) -> VerifiedFile:
    text = written(kind=FileKind.MACHINE) if text is None else text
    return verify_machine_file(text, keys=KEYS, state=None, fingerprint=fingerprint, now=LATER, **more)


def test_a_machine_file_is_for_its_machine() -> None:
    assert machine().machine_id == "mach_1"
    for other in ("another fingerprint", "", FINGERPRINT + " "):
        with pytest.raises(errors.FileOfOtherMachine):
            machine(fingerprint=other)
    with pytest.raises(errors.FileMalformed):
        machine(written(payload(FileKind.MACHINE, fingerprint=None), FileKind.MACHINE))


def test_a_license_file_is_bound_to_a_machine_where_it_says_so() -> None:
    bound = file(fingerprint=fingerprint_mark(FINGERPRINT))
    assert verify(bound, fingerprint=FINGERPRINT)
    for given in (None, "", "another"):
        with pytest.raises(errors.FileOfOtherMachine):
            verify(bound, fingerprint=given)
    assert verify(written(), fingerprint="whatever"), "this one is not"


@pytest.mark.parametrize("bound", [False, True])
def test_an_encrypted_file_needs_the_license_key(bound: bool) -> None:
    said = payload(fingerprint=fingerprint_mark(FINGERPRINT) if bound else None)
    text = written(said, secret=FileSecret(LICENSE_KEY, FINGERPRINT if bound else ""))
    assert verify(text, license_key=f" {LICENSE_KEY.lower()} ", fingerprint=FINGERPRINT)
    with pytest.raises(errors.FileEncrypted):
        verify(text, fingerprint=FINGERPRINT)
    with pytest.raises(errors.FileNotDecrypted):
        verify(text, license_key="PROAPP-WRONG", fingerprint=FINGERPRINT)
    if bound:
        with pytest.raises(errors.FileNotDecrypted):
            verify(text, license_key=LICENSE_KEY, fingerprint="another")


def test_a_file_of_another_product_is_refused_where_it_is_asked() -> None:
    assert verify(written(), product="pro-app")
    with pytest.raises(errors.FileOfOtherProduct):
        verify(written(), product="other-app")


GIVEN: dict[str, Callable[[], Any]] = {
    "text": lambda: KEYS,
    "bytes": KEYS.encode,
    "object": lambda: json.loads(KEYS),
    "answer": lambda: GetJsonWebKeySetResponse(keys=[JsonWebKey(**jwk())]),
    "among others": lambda: {
        "keys": [
            {"kty": "RSA", "kid": "r", "n": "x", "e": "AQAB"},
            7,
            {"kty": "OKP", "crv": "X25519", "kid": "x"},
            jwk(),
        ]
    },
}


@pytest.mark.parametrize("name", GIVEN)
def test_keys_are_taken_as_they_are_published(name: str) -> None:
    assert verify_license_file(written(), keys=GIVEN[name](), state=None, now=LATER)


@pytest.mark.parametrize("keys", ["{}", "[]", '"x"', "nonsense", {"keys": {}}])
def test_what_is_no_key_set_is_a_mistake_of_the_caller(keys: Any) -> None:
    with pytest.raises(ValueError, match=r"JWK Set|JSON|Expecting"):
        verify_license_file(written(), keys=keys, state=None, now=LATER)


@pytest.mark.parametrize("x", ["", "!!", "AAAA"])
def test_a_damaged_key_verifies_nothing(x: str) -> None:
    with pytest.raises(errors.FileSignatureInvalid):
        verify_license_file(written(), keys={"keys": [jwk() | {"x": x}]}, state=None, now=LATER)


@pytest.mark.parametrize("missing", sorted(payload()))
def test_a_signed_file_that_lacks_something_is_refused_and_nothing_crashes(missing: str) -> None:
    said = {name: value for name, value in payload().items() if name != missing}
    if missing in {"iss", "policy", "fingerprint"}:
        assert verify(written(said)), "what nothing is decided by"
        return
    with pytest.raises(errors.FileMalformed):
        verify(written(said))


def test_what_a_newer_service_says_beside_is_let_pass() -> None:
    assert verify(file(more={"of": "it"})).payload["more"] == {"of": "it"}


def test_a_time_without_a_timezone_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="no timezone"):
        verify(written(), now=datetime(2030, 1, 3))


def test_there_is_one_error_for_each_reason() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LicenseFileError)]
    assert len({kind.reason for kind in kinds}) == len(kinds) == 14
    assert {kind.__name__ for kind in kinds} <= set(lictor.__all__)


@pytest.mark.parametrize(
    "at", [ISSUED, datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)]
)
def test_times_are_written_in_one_way(at: datetime) -> None:
    assert moment_from(moment(at)) == at
    assert len(moment(at)) == 27
    for other in (moment(at)[:-1], moment(at).replace("Z", "+00:00"), moment(at).replace("T", " "), 7, None):
        with pytest.raises(errors.FileMalformed):
            moment_from(other)
