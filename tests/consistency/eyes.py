"""Those who validate while the processes are hammered, and what an answer shows of the states that it was made of."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp
from lictor.common.v1.common_pb2 import Decision, Freshness, LicenseSelector
from lictor.license.v1 import validation_service_pb2 as pb

from tests.consistency.fleet import Server
from tests.consistency.hands import reason_of
from tests.consistency.history import Read, Value, Write
from tests.consistency.scene import MIDDLE, STAYS, Scene, bearer_of, now
from tests.helpers.builders import METHODS

Code = pb.ValidationCode.Code
READ_WITHIN_S: Final = 2.0
BATCH: Final = 24
TELLING: Final = {Code.VALID, Code.IN_GRACE}
FULLY_CONSISTENT: Final = 0.03
SENDS_TOKEN: Final = 0.3


@dataclass(frozen=True)
class Question:
    """One validation: by which key, of whom, and what else it names."""

    request: pb.ValidateLicenseRequest
    key: str
    license_id: str
    holder: str
    """The customer that it names, if it names one by his id."""
    subject: str
    """The subject that it names, and `owner`, whose it is or was."""
    owner: str


class TornError(Exception):
    """An answer that contradicts itself."""


Seen = dict[str, dict[str, object] | None]


class Eyes:
    """All who validate. They stop once `stop` is set."""

    def __init__(self, scene: Scene, stop: asyncio.Event) -> None:
        self._scene, self._stop = scene, stop
        self._ledger, self._random = scene.ledger, scene.random

    def tasks(self, each: int = 2) -> list[Awaitable[None]]:
        """For each process `each` who ask for one license at a time, and one who asks for many."""
        work: list[Awaitable[None]] = []
        for server in self._scene.fleet.servers:
            work += [self._one_by_one(server) for _ in range(each)]
            work += [self._by_batch(server), self._of_the_other(server)]
        return work

    def _question(self) -> Question:
        scene, random = self._scene, self._random
        license_id = random.choice(scene.licenses)
        key = random.choice(scene.recent_keys) if random.random() < 0.4 else ""
        selector = LicenseSelector(license_key=key) if key else LicenseSelector(license_id=license_id)
        request = pb.ValidateLicenseRequest(license=selector)
        holder = subject = owner = ""
        pair = scene.holders[license_id]
        if random.random() < 0.5:
            holder = request.user.customer_id = random.choice(pair)
        elif random.random() < 0.4:
            owner = random.choice(pair)
            subject = request.user.subject_ref = str(self._ledger.field_of(f"customer:{owner}", "subject"))
        if random.random() < 0.5:
            request.required_tier = MIDDLE
        if random.random() < 0.3:
            request.product = scene.product_id
        if random.random() < 0.3:
            request.policy_id = random.choice(scene.policies)
        return Question(request, key, "" if key else license_id, holder, subject, owner)

    def _consistency(
        self, request: pb.ValidateLicenseRequest | pb.BatchValidateLicensesRequest
    ) -> tuple[Write, ...] | None:
        """Asks for a state that is fresh enough: the writes whose token it sends, or None for the record itself."""
        if self._random.random() < FULLY_CONSISTENT:
            request.consistency.fully_consistent.SetInParent()
            return None
        if self._ledger.tokens and self._random.random() < SENDS_TOKEN:
            write, token = self._random.choice(self._ledger.tokens)
            request.consistency.at_least_as_fresh.revision_token.CopyFrom(token)
            return (write,)
        return ()

    def _credential(self) -> tuple[str, str]:
        """An API key that is good, or was not long ago, and its line; most of the time the one that stays."""
        scene, random = self._scene, self._random
        if random.random() < 0.6 or not scene.api_keys:
            return STAYS, scene.key
        return random.choice([*scene.api_keys.items(), *scene.recent_api_keys])

    async def _one_by_one(self, server: Server) -> None:
        while not self._stop.is_set():
            question = self._question()
            after = self._consistency(question.request)
            line, secret = self._credential()
            begin = now()
            answer = await self._ask(server, question.request, line, secret, begin)
            if answer is not None:
                self._note(server, begin, [(question, answer)], after)

    async def _by_batch(self, server: Server) -> None:
        while not self._stop.is_set():
            questions = [self._question() for _ in range(self._random.randint(2, BATCH))]
            request = pb.BatchValidateLicensesRequest(requests=[question.request for question in questions])
            after = self._consistency(request)
            line, secret = self._credential()
            begin = now()
            answer = await self._ask(server, request, line, secret, begin)
            if answer is not None:
                self._note(
                    server, begin, [(q, r.response) for q, r in zip(questions, answer.results, strict=True)], after
                )

    async def _of_the_other(self, server: Server) -> None:
        """Of the account that is suspended now and then, nothing but whether its key is good."""
        request = pb.ValidateLicenseRequest(license=LicenseSelector(license_key="none"))
        while not self._stop.is_set():
            await self._ask(server, request, "account", self._scene.other_key, now())
            await asyncio.sleep(self._random.uniform(0, 0.05))

    async def _ask(self, server: Server, request: Any, line: str, secret: str, begin: float) -> Any:
        """The answer, or None. What it tells of the credential is noted: that is a decision of its own."""
        good: Value = {"active": True} if line == "account" else {"live": True}
        try:
            answer = await server.send(request, bearer_of(secret), READ_WITHIN_S)
        except grpc.aio.AioRpcError as error:
            reason = reason_of(error)
            self._ledger.refusals[f"{METHODS[request.DESCRIPTOR.full_name].name} {reason}"] += 1
            if reason == "CREDENTIALS_INVALID":
                bad: Value = {"active": False} if line == "account" else None
                self._credential_seen(server, begin, line, bad)
            else:
                await asyncio.sleep(0.02)
            return None
        if line != STAYS:
            self._credential_seen(server, begin, line, good)
        return answer

    def _credential_seen(self, server: Server, begin: float, line: str, value: Value) -> None:
        """Who calls is a decision of its own, and does not say when it held."""
        self._ledger.reads.append(Read(f"{server.name} credential", begin, now(), {line: value}, self._scene.lease_s))

    def _note(
        self,
        server: Server,
        begin: float,
        answers: list[tuple[Question, pb.ValidateLicenseResponse]],
        after: tuple[Write, ...] | None,
    ) -> None:
        ledger = self._ledger
        ledger.answers += len(answers)
        seen: Seen = {}
        try:
            for question, answer in answers:
                merge(seen, shown(question, answer, ledger.initial))
            source, at = told_once([answer.decision for _, answer in answers])
        except TornError as torn:
            ledger.torn.append(f"{server.name}: {torn}")
            return
        ledger.sources[Freshness.Source.Name(source)] += 1
        leased = source == Freshness.LEASED
        if after is None and leased:
            ledger.torn.append(f"{server.name}: a state under a lease for who asked for the record's")
        lag_s = self._scene.lease_s if leased else 0.0
        evaluated = at.ToNanoseconds() / 1e9 - ledger.wall_s
        memory = server.name if leased else ""
        name = f"{server.name} {len(answers)}"
        ledger.reads.append(Read(name, begin, now(), seen, lag_s, after or (), evaluated, memory))


def told_once(decisions: Sequence[Decision]) -> tuple[Freshness.Source.ValueType, Timestamp]:
    """Where all of these came from, and when that held. TornError where that is not one state."""
    first = decisions[0]
    for other in decisions:
        if (other.freshness, other.evaluated_at) != (first.freshness, first.evaluated_at):
            raise TornError(f"of one batch, {first} and {other}")
    return first.freshness, first.evaluated_at


def merge(seen: Seen, more: Mapping[str, Mapping[str, object] | None]) -> None:
    """Puts what one answer shows to what others of the same state show. TornError where they differ."""
    for line, value in more.items():
        if line not in seen:
            seen[line] = None if value is None else dict(value)
            continue
        known = seen[line]
        if known is None or value is None:
            if known is not value:
                raise TornError(f"{line} is {known} and {value}")
            continue
        for name, one in value.items():
            if known.setdefault(name, one) != one:
                raise TornError(f"{name} of {line} is {known[name]} and {one}")


def shown(question: Question, answer: pb.ValidateLicenseResponse, known: Mapping[str, Value]) -> Seen:
    """What an answer shows of each line. TornError where its code is not the first that these give."""
    if answer.code == Code.NOT_FOUND:
        return {f"key:{question.key}" if question.key else f"license:{question.license_id}": None}
    asked, codes = question.request, list(answer.all_codes)
    line = f"license:{answer.license_id}"
    found: dict[str, object] = {
        "expires": answer.expire_time.seconds,
        "suspended": Code.SUSPENDED in codes,
        "policy": answer.policy_id,
        "tier": answer.tier_id,
    }
    policy: dict[str, object] = {
        "grace": answer.grace_end_time.seconds - answer.expire_time.seconds,
        "trial": answer.is_trial,
    }
    seen: Seen = {line: found, f"policy:{answer.policy_id}": policy, f"tier:{answer.tier_id}": {"slug": answer.tier}}
    if question.key:
        seen[f"key:{question.key}"] = {"found": True}
    if not asked.product:
        policy["product"] = Code.PRODUCT_SCOPE_REQUIRED in codes
    if not asked.policy_id:
        policy["policy"] = Code.POLICY_SCOPE_REQUIRED in codes
    elif (Code.POLICY_SCOPE_MISMATCH in codes) != (answer.policy_id != asked.policy_id):
        raise TornError(f"{line} is under {answer.policy_id}, asked for {asked.policy_id}: {codes}")
    if asked.required_tier:
        seen[f"tier:{answer.tier_id}"] = {"slug": answer.tier, "high": Code.TIER_SCOPE_MISMATCH not in codes}
    is_match = Code.USER_SCOPE_MISMATCH not in codes
    if not asked.HasField("user"):
        policy["user"] = Code.USER_SCOPE_REQUIRED in codes
    elif is_match:
        holder = question.holder or question.owner
        found["holder"] = holder
        customer: dict[str, object] = {"banned": Code.BANNED in codes}
        if question.subject:
            customer["subject"] = question.subject
        seen[f"customer:{holder}"] = customer
    if answer.valid != (set(codes) <= TELLING) or (codes and answer.code != codes[0]):
        raise TornError(f"{line}: valid is {answer.valid}, and the codes {codes}")
    return {name: value for name, value in seen.items() if name in known}
