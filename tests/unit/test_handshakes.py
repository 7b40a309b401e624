"""When grpc is given its certificate anew, and that nobody has begun a handshake just before."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.rpc.handshakes import REST_S, SESSION_S, Handshakes
from shared.rpc.tls import TlsFiles
from tests.helpers.certificates import Authority


class Time:
    """A clock that goes on while somebody rests."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.rested_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def rest(self, left_s: float) -> None:
        self.rested_s += left_s
        self.now_s += left_s


@pytest.mark.parametrize(
    ("mutual", "asked_at", "changes", "expected"),
    [
        (False, [0.0, 0.01, 99.0], False, (False, 0.0)),
        (False, [0.0, 9 * SESSION_S], False, (False, 0.0)),
        (True, [0.0, SESSION_S - 0.001], False, (False, 0.0)),
        (True, [0.0, SESSION_S], False, (True, 0.0)),
        (True, [0.0, SESSION_S - 0.001, SESSION_S], False, (True, REST_S - 0.001)),
        (False, [0.0, 5.0], True, (True, 0.0)),
        (False, [0.0, REST_S], True, (True, 0.0)),
        (False, [0.0, 0.05], True, (True, REST_S - 0.05)),
        (True, [0.0, 0.05], True, (True, REST_S - 0.05)),
        (True, [0.0], True, (True, REST_S)),
    ],
)
def test_what_the_last_handshake_uses(
    tmp_path: Path, mutual: bool, asked_at: list[float], changes: bool, expected: tuple[bool, float]
) -> None:
    """`asked_at` are seconds since the start; the files change before the last. Expected: replaced, and after which rest."""
    replaced, rested = expected
    authority, time = Authority(), Time()
    ca_file = authority.write(tmp_path / "ca.pem") if mutual else None
    handshakes = Handshakes(TlsFiles(*authority.server().write(tmp_path, "server"), ca_file), time, time.rest)
    *before, last = asked_at
    for at in before:
        time.now_s = 1_000.0 + at
        assert handshakes.replaced() is None
    first = handshakes.material
    if changes:
        authority.server(common_name="new").write(tmp_path, "server")
    time.now_s = 1_000.0 + last
    given = handshakes.replaced()
    assert (given is not None, time.rested_s) == (replaced, pytest.approx(rested))
    assert (handshakes.material != first) == changes
    assert given in (None, handshakes.material)
    time.now_s += SESSION_S - 0.001
    assert handshakes.replaced() is None or (mutual and not replaced)


def test_each_replacement_begins_a_new_span(tmp_path: Path) -> None:
    authority, time = Authority(), Time()
    files = TlsFiles(*authority.server().write(tmp_path, "server"), authority.write(tmp_path / "ca.pem"))
    handshakes = Handshakes(files, time, time.rest)
    given: list[float] = []
    for second in range(200):
        time.now_s = 1_000.0 + second
        if handshakes.replaced() is not None:
            given.append(second)
    assert given == [60, 120, 180]
    assert time.rested_s == 0
