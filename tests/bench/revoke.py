"""`revoke_p99`: how long it takes to take a right away, until no validation anywhere answers from before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

from lictor.common.v1.common_pb2 import LicenseSelector
from lictor.license.v1.validation_service_pb2 import (
    BatchValidateLicensesRequest,
    ValidateLicenseRequest,
    ValidationCode,
)

from tests.bench.licensed import FILES, LEASE_MS, TIMEOUT_S, Licensed, licensed
from tests.bench.load import NotRunError
from tests.bench.report import Bound, Figure, Goal, information
from tests.bench.subjects import Effort, Sample, Subject, calls_of, measure, rates
from tests.bench.writes import reached, writes_of
from tests.helpers.suite import bearer

GOAL: Final = Goal("revoke_p99", Bound.MAX, 1.6, 1.2, "ms")
GOALS: Final = (GOAL, writes_of("revoke"))
REVOKED: Final = 200
"""In a round, so that there is a slowest of a hundred, and one more."""
AT_ONCE: Final = 8
LOAD_S: Final = 0.5
"""How long the load is sent at a time, while there are licenses to revoke."""


async def run_revoke(effort: Effort) -> list[Figure]:
    """Revocations, each followed by a validation, while others validate other licenses as fast as they are answered."""
    took_ms: list[list[float]] = []
    alone: list[Sample] = []
    beside: list[float] = []
    each = min(effort.calls or REVOKED, REVOKED)
    spared = FILES + each * effort.rounds
    with TemporaryDirectory() as name:
        async with licensed(Path(name)) as suite:
            validations = suite.subject("validations", suite.validations())
            async with suite.writes(spared) as written:
                calls = await calls_of(validations, effort)
                for start in range(FILES, spared, each):
                    alone.append(await measure(validations, calls))
                    ids = [one.license_id for one in suite.issued[start : start + each]]
                    times_ms, samples = await _revoke(suite, ids, validations, alone[-1].run.rate)
                    if times_ms[0] < LEASE_MS:
                        raise NotRunError(f"a revocation took {times_ms[0]:.0f} ms: it does not wait for its effect")
                    took_ms.append(times_ms)
                    beside.append(sum(s.run.calls for s in samples) / sum(s.run.seconds for s in samples))
    leases = [float(LEASE_MS)] * effort.rounds
    p50 = information("revoke_p50", Bound.MAX, "ms")
    return [
        Figure(GOAL, [times_ms[int(len(times_ms) * 0.99)] for times_ms in took_ms], leases),
        Figure(p50, [times_ms[len(times_ms) // 2] for times_ms in took_ms], leases),
        Figure(information("revoke_load", Bound.MIN, "calls/s"), beside, rates(alone)),
        reached("revoke", written),
    ]


async def _revoke(
    suite: Licensed, license_ids: Sequence[str], validations: Subject, rate: float
) -> tuple[list[float], list[Sample]]:
    """Revokes licenses under load; what each took, in ms, in rising order, and the load. NotRunError for a stale answer."""
    left = iter(license_ids)
    took_ms: list[float] = []
    samples: list[Sample] = []

    async def caller() -> None:
        for license_id in left:
            start = perf_counter()
            await suite.world.test.licenses.revoke(license_id)
            took_ms.append((perf_counter() - start) * 1000)
            # Not by the client, which would show the token of its own write, and not by the method that is counted.
            asked = [ValidateLicenseRequest(license=LicenseSelector(license_id=license_id))]
            [result] = (
                await suite.served.suite.validation.BatchValidateLicenses(
                    BatchValidateLicensesRequest(requests=asked),
                    timeout=TIMEOUT_S,
                    metadata=bearer(suite.world.test_key),
                )
            ).results
            if result.response.code != ValidationCode.REVOKED:
                raise NotRunError(f"a license was revoked, and after that a validation said: {result}")

    revoking = asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    while not revoking.done():
        samples.append(await measure(validations, max(FILES, round(rate * LOAD_S))))
    await revoking
    return sorted(took_ms), samples
