"""The suite over the envoy transport on a Postgres of its own, as `lictor up` has it, with licenses to ask for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from lictor.common.v1.common_pb2 import LicenseSelector
from lictor.license.v1.validation_service_pb2 import (
    BatchValidateLicensesRequest,
    BatchValidateLicensesResponse,
    ValidateLicenseRequest,
    ValidateLicenseResponse,
)

from shared.crypto import root_secret
from shared.crypto.hashing import SecretHasher
from shared.embedded.places import temporary_state
from shared.embedded.postgres import EmbeddedPostgres
from shared.rpc.envoy.program import obstacle
from tests.bench.load import Load, NotRunError, framed
from tests.bench.populate import Issued, populate
from tests.bench.subjects import WARM_UP_CALLS, Counted, Subject, must_answer
from tests.bench.writes import WRITES_PER_S, Written, background
from tests.helpers.builders import open_shop
from tests.helpers.lease import set_lease
from tests.helpers.serving import Served, samples, serving, until
from tests.helpers.suite import World

LICENSES: Final = 10_000
FILES: Final = 8
"""So many different requests are sent, each from a file of its own."""
BATCH: Final = 1000
"""The most that one call may ask for."""
PASSES: Final = 20
FACTS_EACH: Final = 2
"""What is held for each license alone: itself, and its key."""
TIMEOUT_S: Final = 10
"""What a call may take. A busy machine should show in the figures, and not by calls that the server gives up."""
MARKED_WITHIN_S: Final = 180.0
_VALIDATED: Final = "SELECT count(*) FROM license.license_usage WHERE first_validated_at IS NOT NULL"
WORKERS: Final = {"boundary_interval_s": "5", "mark_interval_s": "5"}
"""What works beside the calls works as it does by default; tests have it quiet."""
LEASE_MS: Final = 250
"""L, as it is by default; tests have a shorter one."""
SERVICE: Final = "lictor.license.v1.ValidationService"
VALIDATE: Final = "ValidateLicense"
BATCH_VALIDATE: Final = "BatchValidateLicenses"


@dataclass(frozen=True, slots=True)
class Licensed:
    """The running suite.

    Attributes:
        postgres: Its record.
        served: Its process.
        world: The account that has the licenses.
        issued: All of them, in no order.
        template: The id of the license that they are all like.
        hasher: Makes the hashes of license keys that the server looks for.
    """

    postgres: EmbeddedPostgres
    served: Served
    world: World
    issued: Sequence[Issued] = field(repr=False)
    folder: Path
    template: str
    hasher: SecretHasher = field(repr=False)

    @property
    def asked(self) -> Sequence[Issued]:
        """The licenses that the files ask for, one in each."""
        return self.issued[:FILES]

    @property
    def authorization(self) -> str:
        return f"Bearer {self.world.test_key}"

    def validations(self, *, fresh: bool = False) -> Load:
        """Validations by key, of another license in each file; `fresh` ones ask for the record itself."""
        messages = [request(one, fresh=fresh) for one in self.asked]
        return self.load(VALIDATE, self._files("fresh" if fresh else "validate", messages))

    def batches(self, size: int) -> Load:
        """The same, of `size` licenses in each file."""
        groups = (self.issued[n * size : (n + 1) * size] for n in range(FILES))
        return self.load(BATCH_VALIDATE, self._files("batch", [batch(group) for group in groups]))

    def spread(self, licenses: Sequence[Issued], *, fresh: bool = False, anew: bool = False) -> Load:
        """Validations by key of each of them, as often of the one as of the other; `anew` as in `request`."""
        kind = "fresh" if fresh else "anew" if anew else "validate"
        file = self.folder / f"{kind}-{len(licenses)}-in-one"
        file.write_bytes(b"".join(framed(request(one, fresh=fresh, anew=anew)) for one in licenses))
        return replace(self.load(VALIDATE, [file]), spread=True)

    def subject(self, name: str, load: Load, method: str = VALIDATE, warm_up_calls: int = WARM_UP_CALLS) -> Subject:
        """This server, with a load for one of its methods."""
        return Subject(name, self.served.process.pid, load, Counted(self.served.listen, SERVICE, method), warm_up_calls)

    async def hold(self, licenses: Sequence[Issued]) -> None:
        """Validates each of them until the server holds them all, and once more from memory, so that it holds the answers too.
        NotRunError as `hold_facts`.
        """
        await self.hold_facts(licenses)
        await self._ask_each(licenses)

    async def hold_facts(self, licenses: Sequence[Issued]) -> None:
        """Validates each of them until the server holds them all, and until it has written down that they were found valid: a
        first time costs more than those that follow. NotRunError when one is not valid, or they are not held in the end.
        """
        for _ in range(PASSES):
            await self._ask_each(licenses)
            if await self.metric("lictor_facts_held") > len(licenses) * FACTS_EACH:
                break
        else:
            raise NotRunError(f"{len(licenses)} licenses were validated {PASSES} times, and are not held")
        async with self.served.suite.admin() as admin:

            async def written() -> bool:
                return await admin.fetchval(_VALIDATED) >= len(licenses)

            await until(written, MARKED_WITHIN_S)

    async def _ask_each(self, licenses: Sequence[Issued]) -> None:
        for start in range(0, len(licenses), BATCH):
            group = licenses[start : start + BATCH]
            raw = await self._answer(BATCH_VALIDATE, batch(group))
            found = [result.response for result in BatchValidateLicensesResponse.FromString(raw).results]
            _must_be_valid(zip(found, group, strict=True))

    def from_memory(self) -> AbstractAsyncContextManager[None]:
        """What is measured in the block must be answered from memory, but for a hundredth. Else NotRunError at its end."""
        return self._mostly("lictor_facts_loads_total", 0.0, 0.01, "was loaded from the record")

    def from_valkey(self) -> AbstractAsyncContextManager[None]:
        """The same from Valkey, but for a fifth: some find in memory what another has just brought there."""
        return self._mostly("lictor_facts_from_redis_total", 0.8, 1.1, "was found in Valkey")

    @asynccontextmanager
    async def _mostly(self, metric: str, least: float, most: float, what: str) -> AsyncGenerator[None]:
        counted = Counted(self.served.listen, SERVICE, VALIDATE)
        calls, found = (await counted.outcomes())["OK"], await self.metric(metric)
        yield
        calls, found = (await counted.outcomes())["OK"] - calls, await self.metric(metric) - found
        if not least <= found / calls <= most:
            raise NotRunError(f"what {found:.0f} of {calls} validations needed {what}")

    async def metric(self, name: str) -> float:
        """What the server says of itself, over all labels."""
        _, text = await self.served.get("/metrics")
        return sum(samples(text, name).values())

    async def must_be_valid(self) -> None:
        """What the files ask for, asked by a client that reads the answer. NotRunError when it is not valid."""
        for one in self.asked:
            raw = await self._answer(VALIDATE, request(one))
            _must_be_valid([(ValidateLicenseResponse.FromString(raw), one)])

    def writes(self, spared: int = FILES, per_second: float = WRITES_PER_S) -> AbstractAsyncContextManager[Written]:
        """A background that changes licenses, but not the first `spared`."""
        ids = [one.license_id for one in self.issued[spared:][:LICENSES]]
        return background(self.served.suite.admin_dsn, self.world.account_id, ids, per_second)

    def load(self, method: str, files: Sequence[Path]) -> Load:
        """Requests out of `files` to one method of validation."""
        return Load(f"http://{self.served.listen.api}/{SERVICE}/{method}", files, self.authorization, TIMEOUT_S)

    async def _answer(self, method: str, message: bytes) -> bytes:
        return await must_answer(self.served.listen.api, f"/{SERVICE}/{method}", message, self.authorization)

    def _files(self, name: str, messages: Sequence[bytes]) -> list[Path]:
        files = [self.folder / f"{name}-{n}" for n in range(len(messages))]
        for file, message in zip(files, messages, strict=True):
            file.write_bytes(framed(message))
        return files


def request(license_: Issued, *, fresh: bool = False, anew: bool = False) -> bytes:
    """A validation by key; a `fresh` one asks for the record itself, and no answer to one with `anew` is ever kept: it names
    the consistency that all have."""
    message = _request(license_)
    if anew:
        message.consistency.leased.SetInParent()
    if fresh:
        message.consistency.fully_consistent.SetInParent()
    return message.SerializeToString()


def batch(licenses: Sequence[Issued]) -> bytes:
    """A validation of them all."""
    return BatchValidateLicensesRequest(requests=[_request(one) for one in licenses]).SerializeToString()


@asynccontextmanager
async def licensed(folder: Path, count: int = LICENSES, **settings: str) -> AsyncGenerator[Licensed]:
    """Starts it with `count` licenses. NotRunError where it cannot serve, or does not find a license valid.

    `settings` are settings of the server, without their prefix.
    """
    if (why := obstacle()) is not None:
        raise NotRunError(f"Envoy cannot host Python here: {why}")
    with temporary_state() as state:
        postgres = EmbeddedPostgres(state)
        await asyncio.to_thread(postgres.start)
        try:
            async with serving(postgres, folder, **WORKERS, **settings) as served, served.suite.world() as world:
                await set_lease(postgres.admin_dsn(), LEASE_MS)
                async with served.suite.client(served.suite.operator_key) as operator:
                    await operator.accounts.update(world.account_id, limits={"management_calls_per_second": 0})
                template = await (await open_shop(world.test)).issue()
                hasher = SecretHasher(root_secret.load(served.suite.settings.root_secret_file))
                async with served.suite.admin() as admin:
                    issued = await populate(admin, template.license.license_id, hasher, count)
                random.shuffle(issued)
                suite = Licensed(postgres, served, world, issued, folder, template.license.license_id, hasher)
                await suite.must_be_valid()
                yield suite
        finally:
            await asyncio.to_thread(postgres.stop)


def _request(license_: Issued) -> ValidateLicenseRequest:
    return ValidateLicenseRequest(license=LicenseSelector(license_key=license_.key))


def _must_be_valid(answers: Iterable[tuple[ValidateLicenseResponse, Issued]]) -> None:
    for answer, one in answers:
        if not answer.valid or answer.license_id != one.license_id:
            raise NotRunError(f"a fresh license is not valid: {answer.detail}")
