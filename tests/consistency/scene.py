"""What is written and read while the processes are hammered, chosen so that an answer shows which states it was made of.

A validation shows of its license the expiry, which each change of it moves; of the policy the grace period, whether it asks
for names or for a machine, and how many processes it allows where more than a few run; of the tier the slug, which goes with the
position; of the customer whether he is banned; of the machine that is named whether it has a seat, whether it has sent a
heartbeat and whether its lease is over; and of all that have a seat how many processes run, and the cores, which each change
moves.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any, Final
from uuid import uuid4

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from lictor.common.v1.common_pb2 import RevisionToken
from lictor.license.v1.policy_terms_pb2 import ProcessLeasing

from shared.tenancy import ACCOUNT_SCOPES
from tests.consistency.fleet import Fleet
from tests.consistency.history import History, Read, Value, Write

FAR: Final = 2_000_000_000
"""Seconds: when licenses expire, plus a number that is used once."""
CLOCK_S: Final = 0.001
"""How exactly two clocks are compared."""
STAYS: Final = "the key that stays"
"""The line of the API key that is good throughout."""
PRINTS: Final = ("the one machine", "the other machine")
"""The fingerprints of the machines that licenses may have: the same of each license."""
FEW: Final = 1
"""How many processes policies allow that do not allow `MANY`."""
MANY: Final = 1000
MIDDLE: Final = "middle"
"""The tier that stands between the two places of the others."""


def now() -> float:
    """Seconds of the clock that every process of the machine shares."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def wall_ahead_s() -> float:
    """By how much the wall clock is ahead of that one, looked at when nobody comes in between."""
    looks: list[tuple[float, float]] = []
    for _ in range(20):
        before, wall = now(), time.time()
        took = now() - before
        looks.append((took, wall - before - took / 2))
    return min(looks)[1]


def bearer_of(key: str) -> str:
    return f"Bearer {key}"


@dataclass
class Ledger:
    """What has been written and answered so far, and what each line holds as far as its writer knows."""

    initial: dict[str, Value] = field(default_factory=dict[str, Value])
    held: dict[str, Value] = field(default_factory=dict[str, Value])
    writes: list[Write] = field(default_factory=list[Write])
    reads: list[Read] = field(default_factory=list[Read])
    torn: list[str] = field(default_factory=list[str])
    """Answers that contradict themselves."""
    answers: int = 0
    """Verdicts: a batch has several."""
    machines: int = 0
    """Those that found the machine that they were asked about."""
    processes: int = 0
    """Those that say that more processes run than may."""
    leases: int = 0
    """Those that showed whether a lease is over which ends by itself."""
    tokens: deque[tuple[Write, RevisionToken]] = field(default_factory=lambda: deque(maxlen=8))
    refusals: Counter[str] = field(default_factory=Counter[str])
    sources: Counter[str] = field(default_factory=Counter[str])
    shown: Counter[str] = field(default_factory=Counter[str])
    """How many calls got in, by the kind of the line of what they showed."""
    wall_s: float = field(default_factory=wall_ahead_s)
    """By how much the wall clock was ahead of `now` at first: Postgres, on this machine, goes by it."""

    def begin(self, line: str, value: Value) -> None:
        """A new line; it is in none of the answers yet."""
        self.initial[line] = self.held[line] = value

    def field_of(self, line: str, name: str) -> Any:
        value = self.held[line]
        return None if value is None else value[name]

    def history(self) -> History:
        """For the checker. What was seen of lines that nobody here has made is left out."""
        moved_s = abs(wall_ahead_s() - self.wall_s)
        return History(self.initial, self.writes, self.reads, moved_s + CLOCK_S)


@dataclass
class Secrets:
    """Credentials of one kind, by their lines: those that are good, and some that were."""

    good: dict[str, str] = field(default_factory=dict[str, str])
    gone: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=8))

    @property
    def known(self) -> list[tuple[str, str]]:
        return [*self.good.items(), *self.gone]

    def end(self, line: str) -> None:
        """It is about to end."""
        self.gone.append((line, self.good.pop(line)))


@dataclass
class Callers:
    """Who calls beside those with a secret key."""

    publishable_key: str = field(default="", repr=False)
    """Stays good, with license keys."""
    publishable: Secrets = field(default_factory=Secrets)
    sessions: Secrets = field(default_factory=Secrets)
    customers: list[str] = field(default_factory=list[str])
    """Those who have the sessions."""
    workloads: list[str] = field(default_factory=list[str])
    """The SPIFFE IDs of those with a certificate."""
    bindings: dict[str, str] = field(default_factory=dict[str, str])
    """The binding that each has to itself, where there is one."""
    beneath: dict[str, Value] = field(default_factory=dict[str, Value])
    """What they are without."""


@dataclass(frozen=True)
class Seat:
    """A machine that has a seat. `epoch` is the number of its lease; 0 where it was activated. `processes` are those that run on
    it, by their names."""

    machine_id: str
    cores: int
    epoch: int
    processes: frozenset[str] = frozenset()

    @property
    def takes(self) -> tuple[int, int]:
        """Its cores, and its places for processes."""
        return self.cores, len(self.processes)


@dataclass
class Scene:
    """One account with all that is in it, and the other account, which is suspended now and then."""

    fleet: Fleet
    ledger: Ledger
    random: Random
    lease_s: float
    account_id: str
    key: str = field(repr=False)
    """Stays good; what writes."""
    other_account_id: str
    other_key: str = field(repr=False)
    product_id: str = ""
    policies: list[str] = field(default_factory=list[str])
    tiers: list[str] = field(default_factory=list[str])
    customers: list[str] = field(default_factory=list[str])
    licenses: list[str] = field(default_factory=list[str])
    holders: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    """The two customers between whom a license goes."""
    keys: dict[str, str] = field(default_factory=dict[str, str])
    """Each license's key."""
    recent_keys: deque[str] = field(default_factory=lambda: deque(maxlen=24))
    """License keys that are about to be, are, or were."""
    machines: dict[tuple[str, str], Seat] = field(default_factory=dict[tuple[str, str], Seat])
    """The machines that have a seat, by their license and their fingerprint."""
    dying: set[str] = field(default_factory=set[str])
    """Those whose leases are over after a while, or were."""
    unsure: set[str] = field(default_factory=set[str])
    """Those of whose processes a heartbeat was not answered."""
    recent_machines: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=16))
    """Machines that have a seat or had one, each with its license."""
    api_keys: Secrets = field(default_factory=Secrets)
    callers: Callers = field(default_factory=Callers)
    numbers: count[int] = field(default_factory=lambda: count(1))
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the last call has ended."""

    @property
    def authorization(self) -> str:
        return bearer_of(self.key)

    def far(self) -> tuple[int, Timestamp]:
        """An expiry that no license has had."""
        seconds = FAR + next(self.numbers)
        return seconds, Timestamp(seconds=seconds)


def policy_terms(n: int) -> tuple[dict[str, object], dict[str, Any]]:
    """The `n`-th terms of policies: what a validation shows of them, and their fields."""
    flags = {
        "product": n % 2 == 0, "policy": n % 3 == 0, "user": n % 5 == 0, "trial": n % 4 < 2, "print": n % 7 < 3,
        "beat": n % 11 < 5, "few": n % 5 < 3, "each": n % 13 < 6,
    }  # fmt: skip
    fields: dict[str, Any] = {
        "require_product_scope": flags["product"],
        "require_policy_scope": flags["policy"],
        "require_user_scope": flags["user"],
        "is_trial": flags["trial"],
        "require_fingerprint": flags["print"],
        "require_heartbeat": flags["beat"],
        "max_processes": FEW if flags["few"] else MANY,
        "process_leasing": ProcessLeasing.PER_MACHINE if flags["each"] else ProcessLeasing.PER_LICENSE,
    }
    return {"grace": n, **flags}, {"grace_period": Duration(seconds=n), **fields}


def print_line(license_id: str, shown: str) -> str:
    """The line of what has a fingerprint under a license: the machine, or nothing."""
    return f"print:{license_id}/{shown}"


def lease_line(machine_id: str) -> str:
    """The line of whether a machine's lease is over; of one without a lease it never is."""
    return f"lease:{machine_id}"


def tier_terms(n: int) -> tuple[dict[str, object], dict[str, Any]]:
    """The `n`-th terms of tiers: above the middle, and below it."""
    high = n % 2 == 0
    return {"slug": f"g{n}", "high": high}, {"slug": f"g{n}", "position": 90 if high else 10}


def scopes_of(n: int) -> tuple[dict[str, object], list[str]]:
    """The `n`-th scopes of a binding: what a caller sees of them. The other scopes are the digits of the number."""
    digits = sorted(ACCOUNT_SCOPES - {"licenses:validate"})
    scopes = [scope for place, scope in enumerate(digits) if (n + 1) >> place & 1]
    validates = n % 3 != 2
    return {"scopes": ",".join(scopes), "validates": validates}, scopes + ["licenses:validate"] * validates


def new_key() -> str:
    """A license key that nothing has had."""
    return f"K{uuid4().hex.upper()}"


def license_value(seconds: int, policy_id: str, tier_id: str, holder: str, *, suspended: bool = False) -> Value:
    """A license as validations show it."""
    return {"expires": seconds, "policy": policy_id, "tier": tier_id, "holder": holder, "suspended": suspended}
