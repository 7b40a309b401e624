"""Asks the suite for what the model is asked for, and compares: each answer, what there is in the end, and the events."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg
from lictor.account.v1.account_service_pb2 import WhoAmIRequest
from lictor.common.v1.common_pb2 import Freshness
from lictor.common.v1.options_pb2 import Effect
from lictor.license.v1 import license_service_pb2 as licenses

from tests.helpers import license_model as model
from tests.helpers.builders import METHODS, assert_same, key_with, rules_of, send, uuid
from tests.helpers.lease import lease_passes
from tests.helpers.license_acts import Act, Told
from tests.helpers.license_judge import Outcome, ask, codes_in, judged
from tests.helpers.license_wire import REQUESTS, assert_license
from tests.helpers.suite import Suite, World

TIMES: Final = 3


@dataclass
class Player:
    """One account and its model, side by side."""

    suite: Suite
    world: World
    state: model.State = field(default_factory=model.State)
    told: list[Told] = field(default_factory=list[Told])
    answers: Counter[str] = field(default_factory=Counter[str])
    """How often each kind of act ended in each way: `renew OK`, `renew POLICY_INCOMPATIBLE`, `validate VALID`, `validate
    LEASED`."""
    reader_key: str = field(default="", repr=False)
    token: str = ""
    """Of the last write."""
    untold: bool = False
    """Whether something was written by hand, so that no token tells of it."""
    asked: deque[Act] = field(default_factory=lambda: deque(maxlen=6))
    """Validations that were last asked of memory."""
    unheld: bool = False
    """Whether a write has returned that did not wait until it held."""

    async def play(self, act: Act, *, twice: bool = False) -> None:
        """Asks for it, once or again with the same request id, and compares the answer."""
        if act.kind == "validate":
            await self._validate(act)
            return
        await self._play(act, twice=twice)
        # What was asked before, and is given again, is the new answer.
        touched = act["license_id"]
        again = [asked for asked in self.asked if touched in {None, asked["license_id"]} and not self._is_near(asked)]
        if again and act.kind != "create":
            await self._wait()
            for asked in again:
                await self._play(asked)

    def _is_near(self, asked: Act) -> bool:
        license_id = asked["license_id"]
        return license_id in self.state.licenses and model.is_near(self.state, license_id, datetime.now(UTC))

    async def _wait(self) -> None:
        """Until what was written holds, where it was not waited for."""
        if self.untold or self.unheld:
            await lease_passes()
            self.untold = self.unheld = False

    async def _validate(self, act: Act) -> None:
        """From memory it is asked several times: what comes first may be loaded, and what comes last is given again."""
        how = act["how"]
        if self.untold or how == "leased":
            await self._wait()
        if how == "token" and not self.token:
            how = "record"
        asking = Act("validate", {**act.args, "how": how, "token": self.token})
        for _ in range(1 if how in {None, "record"} else TIMES):
            await self._play(asking)
        if how == "leased":
            self.asked.append(asking)

    async def _play(self, act: Act, *, twice: bool = False) -> None:
        act = with_request_id(act, always=twice)
        outcome = await ask(self.suite, act, await self._key_for(act))
        done = judged(self.state, act, outcome)
        self.state = done.state
        self.told += done.told
        self.answers.update(f"{act.kind} {word}" for word in words(act, outcome))
        if act.kind == "validate":
            self.answers[f"validate {Freshness.Source.Name(outcome.answer.decision.freshness)}"] += 1
        elif not outcome.reason:
            self.token = outcome.answer.revision_token.token
            self.unheld = self.unheld or not is_restricting(act)
        if twice and not outcome.reason:
            assert_same((await ask(self.suite, act, self.world.test_key)).answer, outcome.answer)

    async def _key_for(self, act: Act) -> str:
        """Validations have a key of their own. Another call comes before, which asks for a lease where there is none: who does
        that itself is looked up anew, and is given nothing again."""
        if act.kind != "validate":
            return self.world.test_key
        if not self.reader_key:
            self.reader_key = await key_with(self.world.test, "licenses:validate")
        await send(self.suite, WhoAmIRequest(), self.world.test_key)
        return self.reader_key

    async def let_check_ins_age(self, by: timedelta) -> None:
        """Moves into the past what check-ins count from, which no call can do: how a day passes for a test."""
        async with self.suite.admin() as conn, conn.transaction():
            for statement in (
                "UPDATE license.policy SET check_in_since = check_in_since - $2::interval WHERE account_id = $1",
                "UPDATE license.license SET check_in_from = check_in_from - $2::interval, "
                "created_at = created_at - $2::interval WHERE account_id = $1",
            ):
                await conn.execute(statement, self.world.account_id, by)
        self.untold = self.unheld = True
        policies = {
            policy_id: replace(found, asks_check_ins_since=since and since - by)
            for policy_id, found in self.state.policies.items()
            for since in (found.asks_check_ins_since,)
        }
        licenses_ = {
            license_id: replace(found, check_in_from=since and since - by, created_at=found.created_at - by)
            for license_id, found in self.state.licenses.items()
            for since in (found.check_in_from,)
        }
        self.state = replace(self.state, policies=policies, licenses=licenses_)

    async def look(self) -> None:
        """Every license, and every list of them by each status, tier, policy and customer."""
        listed: list[licenses.License] = []
        for narrowed in (
            {}, *({"status": word} for word in ("active", "suspended", "expired", "revoked", "banned")),
            *({"policy_id": name} for name in self.state.policies), *({"tier_id": name} for name in self.state.tiers),
            *({"customer_id": name} for name in self.state.customers),
        ):  # fmt: skip
            request = licenses.ListLicensesRequest(page_size=1000, **narrowed)  # pyright: ignore[reportArgumentType]
            answer = await send(self.suite, request, self.world.test_key)
            now = datetime.now(UTC)
            expected = [name for name in sorted(self.state.licenses) if self._is_in(name, narrowed, now)]
            assert [one.license_id for one in answer.licenses] == expected, narrowed
            listed = listed or list(answer.licenses)
        for one in listed:
            assert_license(one, self.state, datetime.now(UTC))

    def _is_in(self, license_id: str, narrowed: Mapping[str, str], now: datetime) -> bool:
        found = self.state.licenses[license_id]
        status = model.status_of(found, self.state.policies[found.policy_id].terms, now)
        return all(value == (status if name == "status" else getattr(found, name)) for name, value in narrowed.items())

    async def assert_events(self) -> None:
        """Every event of the account once, in order, without a gap, saying what the model says."""
        await assert_told(self.suite, self.world.account_id, self.told)


async def assert_told(suite: Suite, account_id: str, told: Sequence[Told]) -> None:
    """The events of an account's catalog, customers and licenses are `told`, and no others."""
    async with suite.admin() as conn:
        found = await events_of(conn, account_id)
    assert len({row["event_id"] for row in found}) == len(found)
    assert_tell(found, told)


async def events_of(conn: asyncpg.Connection, account_id: str, *subjects: str) -> Sequence[asyncpg.Record]:
    """The events of an account's catalog, customers and licenses, or of just these; each subject's first to last."""
    return await conn.fetch(
        "SELECT event_id, type, subject, subject_seq, reason, data FROM record.event WHERE account_id = $1 "
        "AND subject ~ '^(prod|tier|pol|cus|lic)_' AND ($2::text[] = '{}' OR subject = ANY ($2)) "
        "ORDER BY subject, subject_seq",
        account_id, list(subjects),
    )  # fmt: skip


def assert_tell(rows: Sequence[asyncpg.Record], told: Sequence[Told]) -> None:
    """Every event once, and each subject's in order and without a gap."""
    found: dict[str, list[asyncpg.Record]] = defaultdict(list)
    expected: dict[str, list[Told]] = defaultdict(list)
    for row in rows:
        found[row["subject"]].append(row)
    for one in told:
        expected[one.subject].append(one)
    assert set(found) == set(expected)
    for subject, ones in found.items():
        assert [row["subject_seq"] for row in ones] == list(range(1, len(ones) + 1)), subject
        assert [(row["type"], row["reason"]) for row in ones] == [(one.type, one.reason) for one in expected[subject]]
        for row, one in zip(ones, expected[subject], strict=True):
            assert {name: row["data"][name] for name in one.subject_is} == dict(one.subject_is), (subject, row["type"])


def is_restricting(act: Act) -> bool:
    """Whether what it does holds everywhere once it has returned."""
    method = METHODS[REQUESTS[act.kind].DESCRIPTOR.full_name]
    return rules_of(method).effect in {Effect.RESTRICTING, Effect.KIND_UNSPECIFIED}


def with_request_id(act: Act, *, always: bool = True) -> Act:
    """Uses are never counted without."""
    if not always and act.kind not in {"increment_uses", "decrement_uses", "reset_uses"}:
        return act
    return Act(act.kind, {**act.args, "request_id": uuid()})


def words(act: Act, outcome: Outcome) -> Sequence[str]:
    """How an act ended."""
    return codes_in(outcome.answer) if act.kind == "validate" else [outcome.reason or "OK"]
