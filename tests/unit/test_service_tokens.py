"""Tokens of services: good for one method, one account and mode, one minute, and one deployment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from shared.crypto.root_secret import RootSecret
from shared.crypto.service_tokens import ServiceCall, ServiceTokenError, ServiceTokens
from shared.errors import DomainError, Reason
from shared.rpc.internal import CALLERS, audience_of, authenticated
from shared.tenancy import Mode, PrincipalKind, Tenant

NOW = datetime(2030, 1, 1, tzinfo=UTC)
US = timedelta(microseconds=1)
METHOD = "/lictor.license.v1.SigningService/SignFile"
CALL = ServiceCall("machine", "license", Tenant("acc_1", Mode.TEST), METHOD)
OLD, NEW = (1, b"o" * 32), (2, b"n" * 32)


class Clock:
    def __init__(self, now: datetime = NOW) -> None:
        self.at = now

    def now(self) -> datetime:
        return self.at

    def boottime(self) -> float:
        return 0.0


def tokens(*versions: tuple[int, bytes], now: datetime = NOW) -> ServiceTokens:
    return ServiceTokens(RootSecret(versions or (OLD,)), Clock(now))


TOKEN = tokens().mint(CALL)


@pytest.mark.parametrize(
    ("age", "good"),
    [
        (timedelta(0), True),
        (timedelta(seconds=60), True),
        (timedelta(seconds=60) + US, False),
        (-timedelta(seconds=5), True),
        (-timedelta(seconds=5) - US, False),
    ],
)
def test_a_token_is_good_for_a_minute(age: timedelta, good: bool) -> None:
    later = tokens(now=NOW + age)
    if good:
        assert later.verify(TOKEN, audience="license", method=METHOD) == CALL
        return
    with pytest.raises(ServiceTokenError):
        later.verify(TOKEN, audience="license", method=METHOD)


def test_a_token_is_good_for_its_method_and_its_service_alone() -> None:
    for audience, method in (("machine", METHOD), ("license", METHOD + "s"), ("license", "")):
        with pytest.raises(ServiceTokenError):
            tokens().verify(TOKEN, audience=audience, method=method)


def test_a_token_is_of_its_deployment() -> None:
    for other in (tokens((1, b"x" * 32)), tokens(NEW)):
        with pytest.raises(ServiceTokenError):
            other.verify(TOKEN, audience="license", method=METHOD)


def test_a_root_secret_is_renewed_without_a_break() -> None:
    both = tokens(NEW, OLD)
    assert both.verify(TOKEN, audience="license", method=METHOD) == CALL
    assert both.mint(CALL).startswith("2.")
    assert tokens(NEW).verify(both.mint(CALL), audience="license", method=METHOD) == CALL


def test_every_bit_of_a_token_counts() -> None:
    good = TOKEN.encode()
    for bit in range(len(good) * 8):
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ServiceTokenError):
            tokens().verify(flipped.decode("latin-1"), audience="license", method=METHOD)


@pytest.mark.parametrize(
    "noise", ["", ".", "..", "1", "1..", "1.x.y", "²." + TOKEN[2:], "0" * 300, "-1.a.b", "1." + "é" * 9]
)
def test_what_is_no_token_is_refused(noise: str) -> None:
    with pytest.raises(ServiceTokenError):
        tokens().verify(noise, audience="license", method=METHOD)


def test_who_is_behind_a_token() -> None:
    found = authenticated(tokens(), METHOD, f"Service {TOKEN}")
    assert (found.kind, found.key_id, found.tenant) == (PrincipalKind.SERVICE, "machine", CALL.tenant)
    assert found.scopes == frozenset()


@pytest.mark.parametrize(
    "authorization",
    [None, "", TOKEN, f"Bearer {TOKEN}", "Bearer sk_test_x", "Service", "Service x",
     "Service " + tokens().mint(ServiceCall("webhook", "license", CALL.tenant, METHOD))],
)  # fmt: skip
def test_nobody_else_is(authorization: str | None) -> None:
    for known in (tokens(), None):
        with pytest.raises(DomainError) as refused:
            authenticated(known, METHOD, authorization)
        assert refused.value.reason is Reason.CREDENTIALS_INVALID


def test_a_method_belongs_to_the_service_of_its_package() -> None:
    assert {audience_of(method) for method in CALLERS} == {"license"}
