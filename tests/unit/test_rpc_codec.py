"""A request is taken at once exactly where none of its strings holds a NUL, whatever else of it is zero bytes."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from lictor.license.v1.license_service_pb2 import CreateLicenseRequest, CustomerRef
from lictor.license.v1.validation_service_pb2 import ValidateLicenseRequest

from shared.rpc.codec import WALK_IN_THREAD_BYTES, decoded

TEXTS = st.text(st.sampled_from("\0\\0a1\"'\n\x01é☃"), max_size=8)


@given(TEXTS, TEXTS, st.dictionaries(TEXTS, TEXTS, max_size=2), TEXTS, st.booleans())
@example("\\000", "\\", {"\\000": "0\\0"}, "\\\\000", True)
@example("", "\\000", {}, "", False)
def test_a_nul_in_any_string_is_seen(name: str, email: str, labels: dict[str, str], deep: str, empty: bool) -> None:
    request = CreateLicenseRequest(display_name=name, customer=CustomerRef(email=email), labels=labels)
    if deep:
        request.metadata.update({"k": [deep, 0.0, False]})
    if empty:
        request.overrides.SetInParent()
    sound = "\0" not in name + email + deep + "".join((*labels, *labels.values()))
    raw = request.SerializeToString()
    # Text that looks like an escaped NUL is left to the walk, which takes longer and finds none, where there are zero bytes.
    walked = b"\0" in raw and "\\000" in str(request)
    assert decoded(CreateLicenseRequest, raw) == (request if sound and not walked else None)


def test_an_empty_message_costs_no_walk() -> None:
    request = ValidateLicenseRequest()
    request.license.license_key = "APP-1"
    request.consistency.fully_consistent.SetInParent()
    raw = request.SerializeToString()
    assert b"\0" in raw
    assert decoded(ValidateLicenseRequest, raw) == request


def test_what_is_long_and_has_a_zero_byte_is_walked() -> None:
    """The text of a message that is long would take the loop's time."""
    request = CreateLicenseRequest(display_name="x" * WALK_IN_THREAD_BYTES)
    assert decoded(CreateLicenseRequest, request.SerializeToString()) == request
    request.overrides.SetInParent()
    assert decoded(CreateLicenseRequest, request.SerializeToString()) is None
