"""The short way answers where the chain would let the call through, and says nothing in any other case."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog
from google.protobuf.wrappers_pb2 import BytesValue, StringValue

from shared.observe.logging import configure
from shared.observe.metrics import Metrics
from shared.rpc.accounts import AccountPlaces
from shared.rpc.admission import AdmissionGate
from shared.rpc.context import MAX_METADATA_BYTES, CallContext, Metadata
from shared.rpc.routes import Effect, Kind, MethodSpec, Rules
from shared.rpc.short import ShortWays
from shared.tenancy import Mode, Principal, PrincipalKind
from tests.unit.test_rpc_context import NoWire

SCOPE = "license:validate"
SHOWN: Metadata = (("authorization", "Bearer sk"),)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    configure(json=True, level="info")
    yield
    structlog.reset_defaults()


def spec(*, hot: bool = True, effect: Effect = Effect.NONE) -> MethodSpec:
    rules = Rules(effect=effect, scope=SCOPE, hot=hot)
    return MethodSpec("/a.B/C", "a.B", "C", rules, StringValue, BytesValue, Kind.UNARY_UNARY, anonymous=False)


def principal(kind: PrincipalKind = PrincipalKind.SECRET_KEY, *scopes: str) -> Principal:
    return Principal(kind, "acc_1", Mode.TEST, "key_1", frozenset(scopes or (SCOPE,)), None)


class Ways:
    """A short way in front of nothing, with one place for each account."""

    def __init__(self, caller: Principal | None = None, answer: bytes | None = b"answer") -> None:
        self.gate, self.metrics, self.places = AdmissionGate(2), Metrics(), AccountPlaces(1, 100)
        self.caller, self.answer = caller or principal(), answer
        self.asked: list[tuple[Principal, bytes]] = []

    def recognise(self, authorization: str) -> Principal | None:
        return self.caller if authorization == "Bearer sk" else None

    def again(self, caller: Principal, body: bytes) -> bytes | None:
        self.asked.append((caller, body))
        return self.answer

    def ask(self, metadata: Metadata = SHOWN, time_left_s: float | None = None) -> bytes | None:
        short = ShortWays(self.gate, self.metrics, self.places, self.recognise).make(spec(), self.again)
        assert short is not None
        return short(
            CallContext(method="/a.B/C", service="a.B", wire=NoWire(), metadata=metadata, time_left_s=time_left_s), b"x"
        )

    @property
    def counted(self) -> int:
        return self.metrics.recorder("a.B", "C").ok_count


async def test_what_is_known_is_answered_and_counted() -> None:
    ways = Ways()
    assert ways.ask() == b"answer"
    assert ways.ask((("user-agent", "x"), *SHOWN), time_left_s=1.0) == b"answer"
    assert ways.asked == [(ways.caller, b"x")] * 2
    assert (ways.counted, ways.gate.in_flight, ways.places.taken("acc_1")) == (2, 0, 0)


@pytest.mark.parametrize(
    ("metadata", "time_left_s"),
    [
        ((), None),
        ((("authorization", "Bearer other"),), None),
        ((("authorization", b"Bearer sk"),), None),
        ((*SHOWN, *SHOWN), None),
        ((*SHOWN, ("a", "x" * MAX_METADATA_BYTES)), None),
        (SHOWN, 0.0049),
    ],
    ids=["no credential", "another", "not text", "two of them", "large metadata", "no time"],
)  # fmt: skip
async def test_what_the_chain_might_refuse_is_left_to_it(metadata: Metadata, time_left_s: float | None) -> None:
    ways = Ways()
    assert ways.ask(metadata, time_left_s) is None
    assert (ways.asked, ways.counted) == ([], 0)


@pytest.mark.parametrize("kind", PrincipalKind)
async def test_callers_that_are_counted_or_kept_out_are_left_to_the_chain(kind: PrincipalKind) -> None:
    let_in = {PrincipalKind.SECRET_KEY, PrincipalKind.OPERATOR, PrincipalKind.WORKLOAD}
    assert (Ways(principal(kind)).ask() is not None) is (kind in let_in)


async def test_who_lacks_the_scope_is_left_to_the_chain() -> None:
    assert Ways(principal(PrincipalKind.SECRET_KEY, "license:read")).ask() is None


async def test_a_process_that_drains_or_is_full_is_left_to_the_chain() -> None:
    ways = Ways()
    ways.gate.enter()
    assert ways.ask() is not None
    ways.gate.enter()
    assert ways.ask() is None
    ways.gate.leave()
    ways.gate.drain()
    assert ways.ask() is None


async def test_an_account_without_a_place_is_left_to_the_chain() -> None:
    ways = Ways()
    whose = ways.places.known(ways.places.arrive("Bearer sk"), "Bearer sk", ways.caller)
    assert ways.ask() is None
    ways.places.leave(whose)
    assert ways.ask() is not None


async def test_an_answer_that_is_not_known_is_left_to_the_chain() -> None:
    ways = Ways(answer=None)
    assert ways.ask() is None
    assert ways.counted == 0


async def test_a_fault_is_left_to_the_chain() -> None:
    class Faulty(Ways):
        def again(self, caller: Principal, body: bytes) -> bytes | None:
            raise RuntimeError

    ways = Faulty()
    assert ways.ask() is None
    assert ways.counted == 0


@pytest.mark.parametrize(("hot", "effect"), [(False, Effect.NONE), (True, Effect.PERMISSIVE)])
def test_only_hot_reads_have_a_short_way(hot: bool, effect: Effect) -> None:
    ways = Ways()
    made = ShortWays(ways.gate, ways.metrics, ways.places, ways.recognise)
    assert made.make(spec(hot=hot, effect=effect), ways.again) is None
    assert ShortWays(ways.gate, ways.metrics, ways.places, None).make(spec(), ways.again) is None


def test_where_calls_are_logged_there_is_no_short_way() -> None:
    configure(json=True, level="debug")
    ways = Ways()
    assert ShortWays(ways.gate, ways.metrics, ways.places, ways.recognise).make(spec(), ways.again) is None
