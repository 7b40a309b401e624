"""Stored results: without the caller's request id nobody reads one, or finds out what was asked."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.crypto import sealing

ONE, OTHER = "6ecd8c99409345269a43b1fbbbb94ae6", "3f1c1ab6f7f14bd5a4d6a8d2f2c7e0a1"
CONTEXT = b"acc_1|TEST|/lictor.license.v1.LicenseService/CreateLicense"


@given(st.uuids(), st.binary(), st.binary())
def test_a_sealed_result_comes_back(request_id: UUID, context: bytes, result: bytes) -> None:
    sealed = sealing.seal(request_id.hex, context, result)
    assert sealing.unseal(request_id.hex, context, sealed) == result


def test_a_sealed_result_shows_nothing() -> None:
    secret = b"PROAPP-0000-1111-2222-3333"
    sealed = sealing.seal(ONE, CONTEXT, secret)
    assert secret not in sealed
    assert secret[-8:] not in sealed
    assert bytes.fromhex(ONE) not in sealed
    assert sealing.seal(ONE, CONTEXT, secret) != sealed
    assert len(sealed) == 12 + len(secret) + 16


@pytest.mark.parametrize(
    ("request_id", "context"), [(OTHER, CONTEXT), (ONE, CONTEXT + b"x"), (ONE, b""), ("", CONTEXT)]
)
def test_a_result_that_was_moved_is_refused(request_id: str, context: bytes) -> None:
    sealed = sealing.seal(ONE, CONTEXT, b"result")
    with pytest.raises(ValueError, match="does not belong to its request"):
        sealing.unseal(request_id, context, sealed)


def test_every_changed_byte_is_noticed() -> None:
    sealed = sealing.seal(ONE, CONTEXT, b"result")
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(ValueError, match="does not belong"):
            sealing.unseal(ONE, CONTEXT, bytes(changed))


@pytest.mark.parametrize("length", [0, 1, 11, 12, 13, 27])
def test_a_cut_result_is_refused(length: int) -> None:
    sealed = sealing.seal(ONE, CONTEXT, b"result")
    with pytest.raises(ValueError, match=r"does not belong|Nonce"):
        sealing.unseal(ONE, CONTEXT, sealed[:length])


@given(st.uuids(), st.uuids())
def test_a_request_id_is_found_by_its_hash(one: UUID, other: UUID) -> None:
    assert (sealing.request_id_hash(one.hex) == sealing.request_id_hash(other.hex)) == (one == other)
    assert sealing.request_id_hash(str(one).upper()) == sealing.request_id_hash(str(one))
    assert len(sealing.request_id_hash(one.hex)) == 32


@given(st.binary(), st.binary())
def test_a_body_is_told_from_another(one: bytes, other: bytes) -> None:
    assert (sealing.body_hash(ONE, one) == sealing.body_hash(ONE, other)) == (one == other)
    assert len(sealing.body_hash(ONE, one)) == 32


def test_equal_bodies_under_two_ids_look_different() -> None:
    """Else the table would say which requests were the same, and could be guessed against."""
    assert sealing.body_hash(ONE, b"body") != sealing.body_hash(OTHER, b"body")
