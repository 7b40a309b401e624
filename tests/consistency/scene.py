"""What is written and read while the processes are hammered, chosen so that an answer shows which states it was made of.

A validation shows of its license the expiry, which each change of it moves; of the policy the grace period, and whether
it asks for names; of the tier the slug, which goes with the position; of the customer whether he is banned.
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
from lictor.account.v1.account_service_pb2 import CreateAccountRequest, CreateApiKeyRequest
from lictor.common.v1.common_pb2 import RevisionToken
from lictor.license.v1 import catalog_service_pb2 as catalog
from lictor.license.v1 import license_service_pb2 as licenses

from tests.consistency.fleet import Fleet
from tests.consistency.history import History, Read, Value, Write

LICENSES: Final = 24
POLICIES: Final = 4
TIERS: Final = 3
CUSTOMERS: Final = 8
API_KEYS: Final = 5
FAR: Final = 2_000_000_000
"""Seconds: when licenses expire, plus a number that is used once."""
CLOCK_S: Final = 0.001
"""How exactly two clocks are compared."""
STAYS: Final = "the key that stays"
"""The line of the API key that is good throughout."""
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
    tokens: deque[tuple[Write, RevisionToken]] = field(default_factory=lambda: deque(maxlen=8))
    refusals: Counter[str] = field(default_factory=Counter[str])
    sources: Counter[str] = field(default_factory=Counter[str])
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
    api_keys: dict[str, str] = field(default_factory=dict[str, str])
    """The lines of API keys, and their secrets: those that are good."""
    recent_api_keys: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=8))
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
    flags = {"product": n % 2 == 0, "policy": n % 3 == 0, "user": n % 5 == 0, "trial": n % 4 < 2}
    fields: dict[str, Any] = {
        "require_product_scope": flags["product"],
        "require_policy_scope": flags["policy"],
        "require_user_scope": flags["user"],
        "is_trial": flags["trial"],
    }
    return {"grace": n, **flags}, {"grace_period": Duration(seconds=n), **fields}


def tier_terms(n: int) -> tuple[dict[str, object], dict[str, Any]]:
    """The `n`-th terms of tiers: above the middle, and below it."""
    high = n % 2 == 0
    return {"slug": f"g{n}", "high": high}, {"slug": f"g{n}", "position": 90 if high else 10}


def new_key() -> str:
    """A license key that nothing has had."""
    return f"K{uuid4().hex.upper()}"


async def set_up(fleet: Fleet, random: Random, lease_s: float) -> Scene:
    """Two accounts, and in the first all that validations look at."""
    server = fleet.servers[0]

    async def ask(request: Any, authorization: str) -> Any:
        request.request_id = str(uuid4())
        return await server.send(request, authorization, 20)

    first, other = [await ask(CreateAccountRequest(display_name="Hammered"), fleet.operator) for _ in range(2)]
    scene = Scene(
        fleet, Ledger(), random, lease_s, first.account.account_id, first.test_api_key,
        other.account.account_id, other.test_api_key,
    )  # fmt: skip
    ledger, mine = scene.ledger, scene.authorization
    ledger.begin("account", {"active": True})
    ledger.begin(STAYS, {"live": True})
    product = await ask(catalog.CreateProductRequest(code="HAMMER", display_name="Hammer"), mine)
    scene.product_id = product.product.product_id

    async def policy() -> None:
        shown, fields = policy_terms(next(scene.numbers))
        request = catalog.CreatePolicyRequest(
            product_id=scene.product_id, display_name="P", perpetual=True, max_machines=1, **fields
        )
        policy_id = (await ask(request, mine)).policy.policy_id
        scene.policies.append(policy_id)
        ledger.begin(f"policy:{policy_id}", shown)

    async def tier() -> None:
        shown, fields = tier_terms(next(scene.numbers))
        request = catalog.CreateTierRequest(product_id=scene.product_id, display_name="T", **fields)
        tier_id = (await ask(request, mine)).tier.tier_id
        scene.tiers.append(tier_id)
        ledger.begin(f"tier:{tier_id}", shown)

    async def customer() -> None:
        subject = f"s{next(scene.numbers)}"
        holder = licenses.CustomerRef(subject_ref=subject)
        request = licenses.CreateLicenseRequest(policy_id=scene.policies[0], customer=holder)
        customer_id = (await ask(request, mine)).license.customer_id
        scene.customers.append(customer_id)
        ledger.begin(f"customer:{customer_id}", {"banned": False, "subject": subject})

    middle = catalog.CreateTierRequest(product_id=scene.product_id, slug=MIDDLE, display_name="M", position=50)
    await asyncio.gather(ask(middle, mine), *(policy() for _ in range(POLICIES)))
    await asyncio.gather(*(tier() for _ in range(TIERS)), *(customer() for _ in range(CUSTOMERS)))
    await asyncio.gather(*(issue(scene, n, ask) for n in range(LICENSES)))
    for _ in range(API_KEYS):
        request = CreateApiKeyRequest(scopes=["licenses:validate"])
        made = await ask(request, mine)
        line = f"api_key:{made.api_key.api_key_id}"
        scene.api_keys[line] = made.secret
        ledger.begin(line, {"live": True})
    return scene


async def issue(scene: Scene, n: int, ask: Any) -> None:
    """The `n`-th license."""
    pair = (scene.customers[2 * n % CUSTOMERS], scene.customers[(2 * n + 1) % CUSTOMERS])
    policy_id, tier_id = scene.random.choice(scene.policies), scene.random.choice(scene.tiers)
    seconds, expire_time = scene.far()
    key = new_key()
    request = licenses.CreateLicenseRequest(
        policy_id=policy_id, tier_id=tier_id, key=key, expire_time=expire_time,
        customer=licenses.CustomerRef(customer_id=pair[0]),
    )  # fmt: skip
    license_id = (await ask(request, scene.authorization)).license.license_id
    scene.licenses.append(license_id)
    scene.holders[license_id], scene.keys[license_id] = pair, key
    scene.recent_keys.append(key)
    scene.ledger.begin(f"key:{key}", {"found": True})
    scene.ledger.begin(f"license:{license_id}", license_value(seconds, policy_id, tier_id, pair[0]))


def license_value(seconds: int, policy_id: str, tier_id: str, holder: str, *, suspended: bool = False) -> Value:
    """A license as validations show it."""
    return {"expires": seconds, "policy": policy_id, "tier": tier_id, "holder": holder, "suspended": suspended}
