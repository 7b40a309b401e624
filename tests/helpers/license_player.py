"""Asks the suite for what the model is asked for, and compares: each answer, what there is in the end, and the events."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import asyncpg
from lictor.license.v1 import license_service_pb2 as licenses

from tests.helpers import license_model as model
from tests.helpers.builders import assert_same, send, uuid
from tests.helpers.license_acts import Act, Told
from tests.helpers.license_judge import Outcome, ask, codes_in, judged
from tests.helpers.license_wire import assert_license
from tests.helpers.suite import Suite, World


@dataclass
class Player:
    """One account and its model, side by side."""

    suite: Suite
    world: World
    state: model.State = field(default_factory=model.State)
    told: list[Told] = field(default_factory=list[Told])
    answers: Counter[str] = field(default_factory=Counter[str])
    """How often each kind of act ended in each way: `renew OK`, `renew POLICY_INCOMPATIBLE`, `validate VALID`."""

    async def play(self, act: Act, *, twice: bool = False) -> None:
        """Asks for it, once or again with the same request id, and compares the answer."""
        twice = twice and act.kind != "validate"
        act = with_request_id(act, always=twice)
        outcome = await ask(self.suite, act, self.world.test_key)
        done = judged(self.state, act, outcome)
        self.state = done.state
        self.told += done.told
        self.answers.update(f"{act.kind} {word}" for word in words(act, outcome))
        if twice and not outcome.reason:
            assert_same((await ask(self.suite, act, self.world.test_key)).answer, outcome.answer)

    async def let_check_ins_age(self, by: timedelta) -> None:
        """Moves into the past what check-ins count from, which no call can do: how a day passes for a test."""
        async with self.suite.admin() as conn, conn.transaction():
            for statement in (
                "UPDATE license.policy SET check_in_since = check_in_since - $2::interval WHERE account_id = $1",
                "UPDATE license.license SET check_in_from = check_in_from - $2::interval, "
                "created_at = created_at - $2::interval WHERE account_id = $1",
            ):
                await conn.execute(statement, self.world.account_id, by)
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


def with_request_id(act: Act, *, always: bool = True) -> Act:
    """Uses are never counted without."""
    if not always and act.kind not in {"increment_uses", "decrement_uses", "reset_uses"}:
        return act
    return Act(act.kind, {**act.args, "request_id": uuid()})


def words(act: Act, outcome: Outcome) -> Sequence[str]:
    """How an act ended."""
    return codes_in(outcome.answer) if act.kind == "validate" else [outcome.reason or "OK"]
