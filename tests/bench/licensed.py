"""The suite over the envoy transport on a Postgres of its own, as `lictor up` has it, with licenses to ask for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lictor.common.v1.common_pb2 import LicenseSelector
from lictor.license.v1.license_service_pb2 import CreateLicenseResponse
from lictor.license.v1.validation_service_pb2 import ValidateLicenseRequest, ValidateLicenseResponse

from shared.embedded.places import temporary_state
from shared.embedded.postgres import EmbeddedPostgres
from shared.rpc.envoy.program import obstacle
from tests.bench.load import Load, NotRunError, framed
from tests.bench.subjects import Counted, Subject, must_answer
from tests.helpers.builders import Shop, open_shop
from tests.helpers.lease import set_lease
from tests.helpers.serving import serving

LICENSES: Final = 10_000
ASKED_FOR: Final = 8
"""So many different keys are validated; the other licenses are there, and are written to."""
AT_ONCE: Final = 64
TIMEOUT_S: Final = 10
"""What a call may take. A busy machine should show in the figures, and not by calls that the server gives up."""
SERVICE: Final = "lictor.license.v1.ValidationService"
METHOD: Final = "ValidateLicense"
PATH: Final = f"/{SERVICE}/{METHOD}"


@dataclass(frozen=True, slots=True)
class Licensed:
    """The running suite.

    Attributes:
        validation: Its process and the load of validations by key.
        endpoint: Where it takes calls.
        api_key: A secret key of the account.
        others: The ids of licenses that no validation asks for.
    """

    validation: Subject
    endpoint: str
    api_key: str = field(repr=False)
    others: tuple[str, ...] = field(repr=False)


@asynccontextmanager
async def licensed(folder: Path) -> AsyncGenerator[Licensed]:
    """Starts it and issues the licenses. NotRunError where it cannot serve, or does not find a license valid."""
    if (why := obstacle()) is not None:
        raise NotRunError(f"Envoy cannot host Python here: {why}")
    with temporary_state() as state:
        postgres = EmbeddedPostgres(state)
        await asyncio.to_thread(postgres.start)
        try:
            async with serving(postgres, folder) as served, served.suite.world() as world:
                await set_lease(postgres.admin_dsn(), 250)
                async with served.suite.client(served.suite.operator_key) as operator:
                    await operator.accounts.update(world.account_id, limits={"management_calls_per_second": 0})
                issued = await _issue(await open_shop(world.test))
                async with served.suite.admin() as admin:
                    await admin.execute("ANALYZE")  # as autovacuum does, within the minute after such a rush
                step = len(issued) // ASKED_FOR
                asked, authorization = issued[::step][:ASKED_FOR], f"Bearer {world.test_key}"
                bodies = [folder / f"validate-{n}" for n in range(len(asked))]
                for body, license_ in zip(bodies, asked, strict=True):
                    selector = LicenseSelector(license_key=license_.key)
                    message = ValidateLicenseRequest(license=selector).SerializeToString()
                    body.write_bytes(framed(message))
                    raw = await must_answer(served.listen.api, PATH, message, authorization)
                    answer = ValidateLicenseResponse.FromString(raw)
                    if not answer.valid or answer.license_id != license_.license.license_id:
                        raise NotRunError(f"a fresh license is not valid: {answer.detail}")
                load = Load(f"http://{served.listen.api}{PATH}", bodies, authorization, TIMEOUT_S)
                counted = Counted(served.listen, SERVICE, METHOD)
                found = {license_.license.license_id for license_ in asked}
                others = tuple(made.license.license_id for made in issued if made.license.license_id not in found)
                subject = Subject("validate_record", served.process.pid, load, counted)
                yield Licensed(subject, served.listen.api, world.test_key, others)
        finally:
            await asyncio.to_thread(postgres.stop)


async def _issue(shop: Shop) -> list[CreateLicenseResponse]:
    issued: list[CreateLicenseResponse] = []
    left = iter(range(LICENSES))

    async def issue_some() -> None:
        for _ in left:
            issued.append(await shop.issue())

    await asyncio.gather(*(issue_some() for _ in range(AT_ONCE)))
    return issued
