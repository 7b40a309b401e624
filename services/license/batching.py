"""Batches answered from memory, all at one state: what is kept is given again, and what is missing is brought first."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from lictor.license.v1 import validation_service_pb2 as pb

from services.license import callers, fields, verdicts
from services.license.answers import Answers, asker_of
from services.license.deciding import asked_of, decided_of, is_for_the_record, wanted_of
from services.license.identities import machine_asked
from services.license.resources import Resources
from shared.crypto.marks import mark
from shared.errors import DomainError
from shared.facts.license import Wanted
from shared.rpc.context import CallContext
from shared.tenancy import PrincipalKind

SLICE: Final = 100
"""Items between two turns of others: one or two milliseconds."""
_ONE_BYTE: Final = 0x80
"""Lengths below this take one byte on the wire."""


async def answer_batch(
    r: Resources, answers: Answers, context: CallContext, requests: Sequence[pb.ValidateLicenseRequest]
) -> bytes | None:
    """The answer to a batch, serialized; None where the record has to answer it, or one of its items is refused."""
    principal = context.principal
    if principal.kind is PrincipalKind.PUBLISHABLE_KEY or principal.stale_as_of is not None:
        return None  # each item is counted, and once; or answered in grace alone
    for _ in range(2):
        found = await _pass(r, answers, context, requests)
        if isinstance(found, bytes):
            r.counts.leased += len(requests)
            return found
        if not 0 < len(found) <= len(requests) // 2:
            return None
        await r.facts.bring(principal.tenant, found)
    return None


async def _pass(
    r: Resources, answers: Answers, context: CallContext, requests: Sequence[pb.ValidateLicenseRequest]
) -> bytes | list[Wanted]:
    """The answer; or what memory lacks, which is nothing where the batch is not one for memory."""
    state, results, lacking = r.facts.state, list[bytes](), list[Wanted]()
    principal = context.principal
    asker = asker_of(principal)
    for n, request in enumerate(requests):
        if n and n % SLICE == 0:
            await asyncio.sleep(0)
            if r.facts.state is not state:
                return []
        key = mark(asker + request.SerializeToString())
        answer = answers.again(principal, key)
        if answer is None:
            made = _made(r, answers, context, key, request)
            if made is None:
                return []
            if isinstance(made, Wanted):
                lacking.append(made)
                continue
            answer = made
        size = _varint(len(answer))
        results += (_RESULTS_TAG, _varint(len(_RESPONSE_TAG) + len(size) + len(answer)), _RESPONSE_TAG, size, answer)
    return lacking or b"".join(results)


def _made(
    r: Resources, answers: Answers, context: CallContext, key: bytes, request: pb.ValidateLicenseRequest
) -> bytes | Wanted | None:
    """One answer; what is to be brought for it; or None where it is not one for memory."""
    principal = context.principal
    try:
        fields.check(request)
        callers.refuse_without_proof(principal, request.license)
        callers.refuse_without_certificate(principal, request)
    except DomainError:
        return None
    machine = machine_asked(r.fingerprints, context, request)
    wanted = wanted_of(r, request, machine)
    loaded = r.facts.held(principal.tenant, wanted)
    if loaded is None:
        return wanted
    if is_for_the_record(loaded):
        return None
    decided = decided_of(loaded, asked_of(request, machine))
    if decided.verdict.valid and loaded.facts is not None:
        r.marks.touched((principal.tenant, loaded.facts.license_id), loaded.now)
    response = verdicts.answer(decided)
    return answers.keep(key, principal, request, decided, response)


@lru_cache(maxsize=4096)
def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= _ONE_BYTE:
        encoded.append(value & (_ONE_BYTE - 1) | _ONE_BYTE)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_RESPONSE_TAG: Final = pb.BatchValidateLicensesResult(response=pb.ValidateLicenseResponse()).SerializeToString()[:1]
_RESULTS_TAG: Final = pb.BatchValidateLicensesResponse(results=[pb.BatchValidateLicensesResult()]).SerializeToString()[
    :1
]
