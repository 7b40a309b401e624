"""The service and a model of it that was written from the docs alone, asked for the same things at random: they never part,
whether the record answers or memory does.

    LICTOR_MODEL_SEED=7 make test-long ARGS="-k license_model"    draws what another run drew, and LICTOR_MODEL_ACCOUNTS
says for how many accounts.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from tests.helpers import license_model as model
from tests.helpers.license_acts import Act
from tests.helpers.license_dice import DURATIONS, Dice
from tests.helpers.license_player import Player
from tests.helpers.suite import Suite, World

SEED: Final = int(os.environ.get("LICTOR_MODEL_SEED", time.time_ns() % 1_000_000))
ACCOUNTS: Final = int(os.environ.get("LICTOR_MODEL_ACCOUNTS", "80"))
STEPS: Final = 150


async def opened(suite: Suite, world: World, dice: Dice) -> Player:
    """An account with two products, their tiers, four policies and three licenses."""
    player = Player(suite, world)
    for code in ("AA", "BB"):
        await player.play(Act("create_product", {"code": code}))
    first, second = player.state.products
    for product_id, slug, position in ((first, "free", 0), (first, "pro", 2), (second, "pro", 1)):
        await player.play(Act("create_tier", {"product_id": product_id, "slug": slug, "position": position}))
    for product_id in (first, first, second):
        await player.play(dice.new_policy(product_id))
    await player.play(Act("create_policy", {"product_id": first, "terms": model.Terms(duration=DURATIONS[0])}))
    for named in (("email", "ada@example.com"), ("subject_ref", "user-1"), None):
        await player.play(Act("create", {"policy_id": list(player.state.policies)[-1], "customer": named}))
    return player


def about_to_change(act: Act, state: model.State) -> bool:
    """Whether time alone may change the answer while it is on its way."""
    now = datetime.now(UTC)
    return act["license_id"] in state.licenses and model.is_near(state, act["license_id"], now)


async def live_through(suite: Suite, seed: int, steps: int) -> Player:
    """One account's life, compared at each step and in the end."""
    dice, story = Dice(seed), list[Act]()
    async with suite.world() as world:
        player = await opened(suite, world, dice)
        try:
            while len(story) < steps:
                act = dice.act(player.state, datetime.now(UTC))
                if not about_to_change(act, player.state):
                    story.append(act)
                    await player.play(act, twice=dice.rarely())
                if dice.rarely(0.03):
                    await player.let_check_ins_age(timedelta(hours=25))
            await player.look()
            await player.assert_events()
        except AssertionError as error:
            lines = [f"{act.kind} {dict(act.args)}" for act in story[-25:]]
            error.add_note("\n".join((f"Dice({seed}), step {len(story)}; the last of its story:", *lines)))
            raise
        return player


async def lives(suite: Suite, seeds: Iterable[int], steps: int) -> Counter[str]:
    """Several, one after the other. How often each kind of act ended how."""
    began, ended, told = time.monotonic(), Counter[str](), 0
    for seed in seeds:
        player = await live_through(suite, seed, steps)
        ended += player.answers
        told += len(player.told)
    took_s = time.monotonic() - began
    print(f"{ended.total()} answers of {len(ended)} kinds, {told} events, {took_s:.0f} s, LICTOR_MODEL_SEED={SEED}")
    print("\n".join(f"{count:7} {what}" for what, count in sorted(ended.items())))
    return ended


async def test_the_service_is_what_the_docs_say(suite: Suite) -> None:
    ended = await lives(suite, range(6), 120)
    assert {"validate VALID", "validate EXPIRED", "renew OK", "change_policy OK"} <= set(ended)
    assert ended["validate LEASED"] > 100


EVERY_CODE: Final = {
    "NOT_FOUND", "BANNED", "REVOKED", "SUSPENDED", "NOT_YET_VALID", "EXPIRED", "CHECK_IN_OVERDUE", "PRODUCT_SCOPE_REQUIRED",
    "PRODUCT_SCOPE_MISMATCH", "POLICY_SCOPE_REQUIRED", "POLICY_SCOPE_MISMATCH", "TIER_SCOPE_MISMATCH", "USER_SCOPE_REQUIRED",
    "USER_SCOPE_MISMATCH", "ENTITLEMENTS_SCOPE_EMPTY", "ENTITLEMENTS_MISSING", "USES_EXCEEDED", "IN_GRACE", "VALID",
}  # fmt: skip


@pytest.mark.long
@pytest.mark.together
@pytest.mark.timeout(900)
async def test_the_service_is_what_the_docs_say_for_long(suite: Suite, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():  # xdist shows of its workers what they say of errors alone
        print(f"\nlicense model, LICTOR_MODEL_SEED={SEED}, {ACCOUNTS} accounts:", file=sys.stderr)
    ended = await lives(suite, range(SEED, SEED + ACCOUNTS), STEPS)
    with capsys.disabled():
        print(f"  {ended.total()} answers of {len(ended)} kinds", file=sys.stderr)
    assert {f"validate {code}" for code in EVERY_CODE} <= set(ended), "what was drawn is not enough"
