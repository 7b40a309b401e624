"""Those who validate while the processes are hammered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import grpc
import grpc.aio
from lictor.account.v1 import account_service_pb2 as accounts
from lictor.common.v1.common_pb2 import Freshness, LicenseSelector
from lictor.license.v1 import validation_service_pb2 as pb

from tests.consistency.fleet import Server
from tests.consistency.hands import reason_of
from tests.consistency.history import Read, Value, Write
from tests.consistency.scene import MIDDLE, PRINTS, STAYS, Scene, bearer_of, now
from tests.consistency.sight import Question, Seen, TornError, by_the_clock, merge, shown, told_once
from tests.helpers.builders import METHODS

READ_WITHIN_S: Final = 2.0
BATCH: Final = 24
FULLY_CONSISTENT: Final = 0.03
SENDS_TOKEN: Final = 0.3
NOTHING: Final[Value] = {}
"""Nothing that changes is seen."""


@dataclass(frozen=True)
class Showing:
    """What a caller shows, and what that tells of a line where it is good, where it is none that works, and where it is not
    good for this call."""

    line: str
    authorization: str | None
    good: Value = field(default_factory=lambda: NOTHING)
    bad: Value = None
    narrow: Mapping[str, Value] | None = None
    identity: str = ""


def by_key(line: str, secret: str) -> Showing:
    """An API key or a session."""
    return Showing(line, bearer_of(secret), {"live": True})


def by_license_key(publishable_key: str, key: str) -> Showing:
    """A license key, with a publishable key that stays. One that ends between the two decisions is not allowed to ask."""
    line = f"key:{key}"
    return Showing(line, f"License {publishable_key}:{key}", {"found": True}, narrow={line: None})


class Eyes:
    """All who validate. They stop once `stop` is set."""

    def __init__(self, scene: Scene, stop: asyncio.Event) -> None:
        self._scene, self._stop = scene, stop
        self._ledger, self._random = scene.ledger, scene.random

    def tasks(self, each: int = 2) -> list[Awaitable[None]]:
        """For each process `each` who ask for one license at a time, one who asks for many, and one of each other kind of
        caller."""
        work: list[Awaitable[None]] = []
        for server in self._scene.fleet.servers:
            work += [self._one_by_one(server) for _ in range(each)]
            work += [self._by_batch(server), self._of_the_other(server), self._with_a_license_key(server)]
            work += [
                self._by_session(server),
                *(self._by_certificate(server, one) for one in self._scene.callers.workloads),
            ]
        return work

    def _question(self, key: str = "") -> Question:
        """About the license of this key; without one about any, by its key or by its id."""
        scene, random = self._scene, self._random
        license_id = random.choice(scene.licenses)
        key = key or (random.choice(scene.recent_keys) if random.random() < 0.4 else "")
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
        fingerprint = machine_of = ""
        if random.random() < 0.5:
            fingerprint = request.identity.fingerprint = random.choice(PRINTS)
        elif scene.recent_machines and random.random() < 0.4:
            machine_of, request.machine_id = random.choice(scene.recent_machines)
        return Question(request, key, "" if key else license_id, holder, subject, owner, fingerprint, machine_of)

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

    def _credential(self) -> Showing:
        """An API key that is good, or was not long ago; most of the time the one that stays."""
        scene, random = self._scene, self._random
        if random.random() < 0.6 or not scene.api_keys.good:
            return Showing(STAYS, bearer_of(scene.key))
        return by_key(*random.choice(scene.api_keys.known))

    async def _one_by_one(self, server: Server) -> None:
        while not self._stop.is_set():
            await self._validate(server, self._question(), self._credential())

    async def _validate(self, server: Server, question: Question, showing: Showing) -> None:
        """One validation, by whoever shows this."""
        after = self._consistency(question.request)
        begin = now()
        answer = await self._ask(server, question.request, showing, begin)
        if answer is not None:
            self._note(server, begin, [(question, answer)], after)

    async def _by_batch(self, server: Server) -> None:
        while not self._stop.is_set():
            questions = [self._question() for _ in range(self._random.randint(2, BATCH))]
            request = pb.BatchValidateLicensesRequest(requests=[question.request for question in questions])
            after = self._consistency(request)
            begin = now()
            answer = await self._ask(server, request, self._credential(), begin)
            if answer is not None:
                self._note(
                    server, begin, [(q, r.response) for q, r in zip(questions, answer.results, strict=True)], after
                )

    async def _of_the_other(self, server: Server) -> None:
        """Of the account that is suspended now and then, nothing but whether its key is good."""
        request = pb.ValidateLicenseRequest(license=LicenseSelector(license_key="none"))
        showing = Showing("account", bearer_of(self._scene.other_key), {"active": True}, {"active": False})
        while not self._stop.is_set():
            await self._ask(server, request, showing, now())
            await asyncio.sleep(self._random.uniform(0, 0.05))

    async def _with_a_license_key(self, server: Server) -> None:
        """An application with a publishable key: it shows a license key as its credential, or asks about one."""
        callers = self._scene.callers
        while not self._stop.is_set():
            key = self._random.choice(self._scene.recent_keys)
            question = self._question(key)
            if self._random.random() < 0.5:
                if self._random.random() < 0.5:
                    question.request.ClearField("license")
                await self._validate(server, question, by_license_key(callers.publishable_key, key))
            elif callers.publishable.known:
                await self._validate(server, question, by_key(*self._random.choice(callers.publishable.known)))
            await asyncio.sleep(self._random.uniform(0, 0.02))

    async def _by_session(self, server: Server) -> None:
        """A customer who asks who it is, while it has a session and after."""
        while not self._stop.is_set():
            if self._scene.callers.sessions.known:
                showing = by_key(*self._random.choice(self._scene.callers.sessions.known))
                await self._ask(server, accounts.WhoAmIRequest(), showing, now())
            await asyncio.sleep(self._random.uniform(0, 0.03))

    async def _by_certificate(self, server: Server, workload: str) -> None:
        """A caller without a key: it asks who it is, and about licenses, which its binding allows now and then."""
        line = f"workload:{workload}"
        showing = Showing(line, None, {"validates": True}, narrow={line: {"validates": False}}, identity=workload)
        while not self._stop.is_set():
            if self._random.random() < 0.5:
                begin = now()
                who = await self._ask(server, accounts.WhoAmIRequest(), replace(showing, good=NOTHING), begin)
                if who is not None:
                    others = ",".join(sorted(set(who.scopes) - {"licenses:validate"}))
                    value = {"scopes": others, "validates": "licenses:validate" in who.scopes}
                    self._credential_seen(server, begin, {line: value})
            else:
                await self._validate(server, self._question(), showing)
            await asyncio.sleep(self._random.uniform(0, 0.02))

    async def _ask(self, server: Server, request: Any, showing: Showing, begin: float) -> Any:
        """The answer, or None. What it tells of the credential is noted: that is a decision of its own."""
        try:
            answer = await server.send(request, showing.authorization, READ_WITHIN_S, showing.identity)
        except grpc.aio.AioRpcError as error:
            reason = reason_of(error)
            self._ledger.refusals[f"{METHODS[request.DESCRIPTOR.full_name].name} {reason}"] += 1
            if reason == "CREDENTIALS_INVALID":
                self._credential_seen(server, begin, {showing.line: showing.bad})
            elif reason == "CALLER_NOT_ALLOWED" and showing.narrow is not None:
                self._credential_seen(server, begin, showing.narrow)
            else:
                await asyncio.sleep(0.02)
            return None
        self._ledger.shown[showing.line.partition(":")[0]] += 1
        if showing.good is not NOTHING:
            self._credential_seen(server, begin, {showing.line: showing.good})
        return answer

    def _credential_seen(self, server: Server, begin: float, seen: Mapping[str, Value]) -> None:
        """Who calls is a decision of its own, and does not say when it held."""
        self._ledger.reads.append(Read(f"{server.name} credential", begin, now(), seen, self._scene.lease_s))

    def _note(
        self,
        server: Server,
        begin: float,
        answers: list[tuple[Question, pb.ValidateLicenseResponse]],
        after: tuple[Write, ...] | None,
    ) -> None:
        ledger = self._ledger
        ledger.answers += len(answers)
        ledger.machines += sum(answer.machine_id != "" for _, answer in answers)
        ledger.processes += sum(pb.ValidationCode.TOO_MANY_PROCESSES in answer.all_codes for _, answer in answers)
        seen: Seen = {}
        try:
            for question, answer in answers:
                merge(seen, shown(question, answer, ledger.initial))
            source, at = told_once([answer.decision for _, answer in answers])
        except TornError as torn:
            ledger.torn.append(f"{server.name}: {torn}")
            return
        for _, answer in answers:
            # Of the others' leases nothing but an end would say anything.
            if answer.machine_id in self._scene.dying or answer.heartbeat_status == pb.MachineHeartbeat.DEAD:
                over = by_the_clock(answer, ledger.initial)
                ledger.leases += len(over)
                ledger.reads.append(Read(f"{server.name} lease", begin, now(), over, self._scene.lease_s))
        ledger.sources[Freshness.Source.Name(source)] += 1
        leased = source == Freshness.LEASED
        if after is None and leased:
            ledger.torn.append(f"{server.name}: a state under a lease for who asked for the record's")
        lag_s = self._scene.lease_s if leased else 0.0
        evaluated = at.ToNanoseconds() / 1e9 - ledger.wall_s
        memory = server.name if leased else ""
        name = f"{server.name} {len(answers)}"
        ledger.reads.append(Read(name, begin, now(), seen, lag_s, after or (), evaluated, memory))
