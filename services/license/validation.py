"""ValidationService: protobuf to a decision and back, nothing else."""

from __future__ import annotations

import asyncio
from typing import Final

from google.rpc import status_pb2  # pyright: ignore[reportMissingTypeStubs]
from lictor.common.v1.common_pb2 import View
from lictor.license.v1 import validation_service_pb2 as pb

from services.license import callers, fields, grace, render, store, verdicts
from services.license.answers import Answers, key_of
from services.license.batching import answer_batch
from services.license.deciding import Decided, decide_many, decide_one, decided_of, load_recorded
from services.license.explaining import explain
from services.license.model import License
from services.license.resources import Resources
from services.license.watching import watch
from shared.errors import DomainError
from shared.freshness.reader import Source
from shared.rpc.context import CallContext
from shared.rpc.status import to_status
from shared.tenancy import Principal, Tenant

_WITH_LICENSE: Final = frozenset({View.BASIC, View.FULL})
SLICE: Final = 50
"""Answers that are made between two turns of others: about two milliseconds."""
_MAX_ANSWER_BYTES: Final = 3 * 1024 * 1024


class ValidationServicer:
    """May this license be used, now?"""

    def __init__(self, resources: Resources, answers: Answers) -> None:
        self._r = resources
        self._answers = answers

    async def ValidateLicense(
        self, request: pb.ValidateLicenseRequest, context: CallContext
    ) -> pb.ValidateLicenseResponse | bytes:
        principal = context.principal
        key = key_of(principal, request.SerializeToString())
        if (recalled := self._answers.recalled(context, key)) is not None:
            self._r.counts.leased += 1
            return recalled
        callers.fill_in(principal, request.license)
        fields.check(request)
        callers.refuse_view(principal, request.view)
        callers.refuse_without_proof(principal, request.license)
        callers.refuse_without_certificate(principal, request)
        decided = await decide_one(self._r, context, request)
        self._note(principal.tenant, decided)
        response = verdicts.answer(decided)
        if request.view not in _WITH_LICENSE or not response.license_id:
            return self._answers.keep(key, principal, request, decided, response)
        grace.refuse_view(decided.loaded)
        found = (await self._licenses(principal.tenant, [response.license_id])).get(response.license_id)
        if found is not None:
            at, full = decided.loaded.now, request.view == View.FULL
            response.license.CopyFrom(render.license_(found, at, metadata=full))
        return response

    def validate_again(self, principal: Principal, request: bytes) -> bytes | None:
        """What `ValidateLicense` answers, where it would give an answer again. The bytes are those of a request that it has
        answered: one is kept under what protobuf makes of it."""
        answer = self._answers.again(principal, key_of(principal, request))
        if answer is not None:
            self._r.counts.leased += 1
        return answer

    async def BatchValidateLicenses(
        self, request: pb.BatchValidateLicensesRequest, context: CallContext
    ) -> pb.BatchValidateLicensesResponse | bytes:
        principal = context.principal
        fields.check(request)
        callers.refuse_view(principal, request.view)
        callers.refuse_large_batch(principal, len(request.requests))
        if request.view not in _WITH_LICENSE and not request.HasField("consistency"):
            answered = await answer_batch(self._r, self._answers, context, request.requests)
            if answered is not None:
                return answered
        refused: dict[int, status_pb2.Status] = {}
        for n, one in enumerate(request.requests):
            try:
                fields.check(one)
                callers.refuse_without_proof(principal, one.license)
                callers.refuse_without_certificate(principal, one)
            except DomainError as error:
                refused[n] = to_status(error, context.call_id, context.method)
        asked = [one for n, one in enumerate(request.requests) if n not in refused]
        decisions = iter(await decide_many(self._r, context, asked, request.consistency) if asked else [])
        response = pb.BatchValidateLicensesResponse()
        decided: list[Decided] = []
        for n, one in enumerate(request.requests):
            if n % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            result = response.results.add()
            if n in refused:
                result.status.CopyFrom(refused[n])
                continue
            answer = next(decisions)
            if isinstance(answer, DomainError):
                result.status.CopyFrom(to_status(answer, context.call_id, context.method))
                continue
            if request.view in _WITH_LICENSE:
                grace.refuse_view(answer.loaded)
            decided.append(answer)
            self._note(principal.tenant, answer)
            result.response.CopyFrom(verdicts.answer(answer))
            self._answers.keep(key_of(principal, one.SerializeToString()), principal, one, answer, result.response)
        if request.view in _WITH_LICENSE:
            await self._add_licenses(principal.tenant, response, decided, full=request.view == View.FULL)
        return response

    async def ExplainValidation(
        self, request: pb.ExplainValidationRequest, context: CallContext
    ) -> pb.ExplainValidationResponse:
        fields.check(request)
        callers.refuse_without_certificate(context.principal, request.validation)
        loaded, asked = await load_recorded(self._r, context, request.validation)
        return pb.ExplainValidationResponse(
            verdict=verdicts.answer(decided_of(loaded, asked)),
            checks=[verdicts.explained(found) for found in explain(loaded.facts, asked, loaded.now)],
        )

    async def WatchLicenses(self, request: pb.WatchLicensesRequest, context: CallContext) -> None:
        fields.check(request)
        await watch(self._r, context, request)

    def _note(self, tenant: Tenant, decided: Decided) -> None:
        """Counts the answer, and remembers that the license was found valid, which grace does not: it writes nothing."""
        source = decided.loaded.source
        self._r.counts.counted(source)
        if decided.verdict.valid and decided.loaded.facts is not None and source is not Source.GRACE:
            self._r.marks.touched((tenant, decided.loaded.facts.license_id), decided.loaded.now)

    async def _add_licenses(
        self, tenant: Tenant, response: pb.BatchValidateLicensesResponse, decided: list[Decided], *, full: bool
    ) -> None:
        """As many of the licenses as fit."""
        answers = [result.response for result in response.results if result.HasField("response")]
        found = await self._licenses(tenant, sorted({one.license_id for one in answers if one.license_id}))
        room = _MAX_ANSWER_BYTES - response.ByteSize()
        for answer, one in zip(answers, decided, strict=True):
            if answer.license_id in found:
                shown = render.license_(found[answer.license_id], one.loaded.now, metadata=full)
                room -= shown.ByteSize() + _FRAME_BYTES
                if room < 0:
                    return
                answer.license.CopyFrom(shown)

    async def _licenses(self, tenant: Tenant, license_ids: list[str]) -> dict[str, License]:
        async with self._r.db.transaction(tenant, read_only=True) as tx:
            return {found.license_id: found for found in await store.get_licenses(tx, license_ids)}


_FRAME_BYTES: Final = 16
"""What a message inside a message costs beside itself: at most so much, three times over."""
