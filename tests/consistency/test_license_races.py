"""Two processes are asked for two things of one license at the same moment: it ends as if one had come after the other.

Every pair, in every situation. What counts as one after the other is what the model of tests/helpers says, about both
answers, the license in the end and all events.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import combinations_with_replacement, product
from random import Random
from typing import Any, Final

import asyncpg
import pytest
import pytest_asyncio
from lictor.license.v1.license_service_pb2 import GetLicenseRequest

from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers import license_model as model
from tests.helpers.builders import ago, ahead, refused, send
from tests.helpers.license_acts import Act, Told
from tests.helpers.license_judge import Outcome, ask, judged
from tests.helpers.license_player import Player, assert_tell, events_of, with_request_id, words
from tests.helpers.license_wire import assert_license
from tests.helpers.serving import serving
from tests.helpers.suite import Suite, World

SEED: Final = int(os.environ.get("LICTOR_MODEL_SEED", time.time_ns() % 1_000_000))
ROUNDS: Final = int(os.environ.get("LICTOR_RACE_ROUNDS", "3"))
AT_ONCE: Final = 4
"""Races that are run side by side, on a license each."""

WAITING: Final = model.Terms(
    duration=timedelta(days=30), expiration_basis="FROM_FIRST_VALIDATION", max_uses=3, uses_counted_by="VALIDATION",
    require_check_in=True, check_in_interval="MONTH", overridable=frozenset({"MAX_USES"}),
)  # fmt: skip
PLAIN: Final = model.Terms(duration=timedelta(days=30), max_uses=2, renewal_basis="FROM_NOW_IF_EXPIRED")
LENIENT: Final = replace(PLAIN, expiration_strategy="ALLOW_ACCESS", uses_counted_by="VALIDATION")
OTHER: Final = model.Terms(duration=timedelta(days=90), transfer_strategy="RESET_EXPIRY", require_check_in=True,
                           check_in_interval="DAY")  # fmt: skip
SITUATIONS: Final[Mapping[str, model.Terms]] = {
    "waiting": WAITING, "active": replace(PLAIN, expiration_basis="FROM_FIRST_USE"), "suspended": PLAIN, "expired": PLAIN,
    "usable": LENIENT,
}  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """A license in some situation, and what acts on it may name."""

    situation: str
    license_id: str
    customer_id: str
    policy_id: str
    other_policy_id: str
    tier_id: str
    email: str
    """A customer's who may be new."""

    def about(self, kind: str, **more: Any) -> Act:
        return Act(kind, {"license_id": self.license_id, **more})


ACTS: Final[Mapping[str, Callable[[Scene], Act]]] = {
    "suspend": lambda scene: scene.about("suspend", reason="why"),
    "reinstate": lambda scene: scene.about("reinstate", expire_time=ahead(days=50) if scene.situation == "expired" else None),
    "renew": lambda scene: scene.about("renew"),
    "revoke": lambda scene: scene.about("revoke", reason="why"),
    "ban": lambda scene: scene.about("ban"),
    "update": lambda scene: scene.about("update", changes={"display_name": "name", "expire_time": ahead(days=40)}),
    "update_as_read": lambda scene: scene.about("update", changes={"display_name": "mine"}, etag="now"),
    "change_tier": lambda scene: scene.about("change_tier", tier_id=scene.tier_id),
    "change_policy": lambda scene: scene.about("change_policy", policy_id=scene.other_policy_id),
    "transfer": lambda scene: scene.about("transfer", customer=("email", scene.email)),
    "rotate_key": lambda scene: scene.about("rotate_key", overlap=timedelta(days=2)),
    "delete": lambda scene: scene.about("delete"),
    "check_in": lambda scene: scene.about("check_in"),
    "increment_uses": lambda scene: scene.about("increment_uses", uses=1),
    "decrement_uses": lambda scene: scene.about("decrement_uses", uses=1),
    "reset_uses": lambda scene: scene.about("reset_uses"),
    "validate": lambda scene: scene.about("validate", asked=model.Asked()),
    "ban_customer": lambda scene: Act("ban_customer", {"customer_id": scene.customer_id, "reason": "why"}),
    "update_policy": lambda scene: Act(
        "update_policy", {"policy_id": scene.policy_id, "terms": {"max_uses": 1, "grace_period": timedelta(days=2)}}
    ),
}  # fmt: skip
ORDERED: Final = tuple(product(ACTS, ACTS))
UNORDERED: Final = tuple(combinations_with_replacement(ACTS, 2))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def processes(
    postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[tuple[Suite, Suite]]:
    """Two servers, each a process of its own, over one database and with the same secrets."""
    folder = tmp_path_factory.mktemp("two")
    async with serving(postgres, folder, "grpcio") as first, serving(postgres, folder, "grpcio") as second:
        yield first.suite, second.suite


@dataclass
class Stage:
    """One account, where races are set up, run and judged."""

    processes: tuple[Suite, Suite]
    world: World
    conn: asyncpg.Connection
    random: Random
    product_id: str
    tier_id: str
    other_policy: tuple[str, model.Policy]
    base: model.State
    ended: Counter[str]

    @classmethod
    async def set_up(cls, processes: tuple[Suite, Suite], world: World, conn: asyncpg.Connection) -> Stage:
        player = Player(processes[0], world)
        await player.play(Act("create_product", {"code": "RACE"}))
        (product_id,) = player.state.products
        await player.play(Act("create_tier", {"product_id": product_id, "slug": "pro", "position": 1}))
        await player.play(Act("create_policy", {"product_id": product_id, "terms": OTHER}))
        (other,) = player.state.policies.items()
        (tier_id,) = player.state.tiers
        return cls(processes, world, conn, Random(SEED), product_id, tier_id, other, player.state, Counter())

    async def scene(self, situation: str, number: int) -> tuple[Scene, Player]:
        """A license of its own, with a policy and a customer of its own: races side by side have nothing in common."""
        player = Player(self.processes[number % 2], self.world, self.base)
        terms = SITUATIONS[situation]
        await player.play(Act("create_policy", {"product_id": self.product_id, "terms": terms}))
        policy_id = list(player.state.policies)[-1]
        over = situation in {"expired", "usable"}
        dates = {"start_time": ago(hours=9), "expire_time": ago(hours=5)} if over else {}
        email = f"{situation}-{number}@example.com"
        await player.play(Act("create", {"policy_id": policy_id, "customer": ("email", email), **dates}))
        (license_id,), (customer_id,) = player.state.licenses, player.state.customers
        if situation == "suspended":
            await player.play(Act("suspend", {"license_id": license_id}))
        return Scene(
            situation, license_id, customer_id, policy_id, self.other_policy[0], self.tier_id, f"new-{email}"
        ), player

    async def race(self, pair: tuple[str, str], situation: str, number: int) -> None:
        """Both at the same moment, and the verdict on how it ended."""
        scene, player = await self.scene(situation, number)
        etag = f"r{player.state.licenses[scene.license_id].revision}"
        acts = [with_request_id(ACTS[name](scene), always=False) for name in pair]
        acts = [Act(act.kind, {**act.args, "etag": etag}) if act["etag"] == "now" else act for act in acts]
        late_s = [0.0, self.random.choice((0.0, 0.0, 0.001, 0.003))]
        self.random.shuffle(late_s)

        async def one(suite: Suite, act: Act, after_s: float) -> Outcome:
            await asyncio.sleep(after_s)
            return await ask(suite, act, self.world.test_key)

        first, second = await asyncio.gather(
            *(one(suite, act, after_s) for suite, act, after_s in zip(self.processes, acts, late_s, strict=True))
        )
        done = [(acts[0], first), (acts[1], second)]
        rows = await self._events(scene, done)
        why: list[AssertionError] = []
        for order in (done, done[::-1]):
            try:
                await self._assert_was(player, order, rows, scene)
            except AssertionError as error:
                why.append(error)
            else:
                self.ended[" | ".join(f"{act.kind} {' '.join(words(act, outcome))}" for act, outcome in order)] += 1
                return
        ends = [f"{act.kind}: {' '.join(words(act, outcome))}" for act, outcome in done]
        told = [f"{row['subject_seq']} {row['type']}" for row in rows if row["subject"] == scene.license_id]
        raise AssertionError(f"{situation}: {ends}, {told}\n  first {pair[0]}: {why[0]}\n  first {pair[1]}: {why[1]}")

    async def _events(self, scene: Scene, done: Sequence[tuple[Act, Outcome]]) -> Sequence[asyncpg.Record]:
        """Of the license, its policy, and each customer that it has had."""
        holders = {scene.customer_id}
        for _, outcome in done:
            found = getattr(outcome.answer, "license", None)
            holders |= {found.customer_id} if found is not None and found.customer_id else set()
        return await events_of(self.conn, self.world.account_id, scene.license_id, scene.policy_id, *holders)

    async def _assert_was(
        self, player: Player, order: Sequence[tuple[Act, Outcome]], rows: Sequence[asyncpg.Record], scene: Scene
    ) -> None:
        """The answers, the events and the license in the end are those of this order."""
        state, told = player.state, list[Told](player.told)
        for act, outcome in order:
            done = judged(state, act, outcome)
            state = done.state
            told += done.told
        assert_tell(rows, told)
        request = GetLicenseRequest(license_id=scene.license_id)
        if scene.license_id in state.licenses:
            found = (await send(self.processes[0], request, self.world.test_key)).license
            assert_license(found, state, max(outcome.after for _, outcome in order))
        else:
            assert (await refused(self.processes[0], request, self.world.test_key)).reason == "LICENSE_NOT_FOUND"


async def races(processes: tuple[Suite, Suite], plan: Sequence[tuple[tuple[str, str], str]]) -> Counter[str]:
    """Runs and judges them, some side by side."""
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        stages = [
            await Stage.set_up(processes, world, await stack.enter_async_context(processes[0].admin()))
            for world in [await stack.enter_async_context(processes[0].world()) for _ in range(AT_ONCE)]
        ]
        numbered = list(enumerate(plan))

        async def run(number: int, stage: Stage) -> None:
            for at, (pair, situation) in numbered[number::AT_ONCE]:
                await stage.race(pair, situation, at)

        await asyncio.gather(*(run(number, stage) for number, stage in enumerate(stages)))
    ended = sum((stage.ended for stage in stages), Counter[str]())
    print(f"{len(plan)} races, {time.monotonic() - began:.1f} s, {len(ended)} ways to end, LICTOR_MODEL_SEED={SEED}")
    print("\n".join(f"{count:7} {what}" for what, count in sorted(ended.items())))
    return ended


async def test_any_two_at_once_are_one_after_the_other(processes: tuple[Suite, Suite]) -> None:
    """Every pair once, the situations in turn."""
    names = list(SITUATIONS)
    plan = [(pair, names[at % len(names)]) for at, pair in enumerate(UNORDERED)]
    assert (await races(processes, plan)).total() == len(plan)


@pytest.mark.long
@pytest.mark.together
@pytest.mark.timeout(900)
async def test_any_two_at_once_in_every_situation(
    processes: tuple[Suite, Suite], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every ordered pair, the first asked of the one process and the second of the other."""
    plan = [(pair, situation) for _ in range(ROUNDS) for situation in SITUATIONS for pair in ORDERED]
    began = time.monotonic()
    ended = await races(processes, plan)
    with capsys.disabled():
        told = f"\n{ended.total()} races in {time.monotonic() - began:.0f} s, LICTOR_MODEL_SEED={SEED}"
        print(told, file=sys.stderr)  # which is all that xdist shows of its workers
    assert ended.total() == len(plan)
