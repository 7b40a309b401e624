"""One tenant's flood moves another's p99 by little: both are measured in turn, with and without it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import pytest
from google.protobuf.message import Message
from lictor.account.v1.account_service_pb2 import WhoAmIRequest
from lictor.common.v1.common_pb2 import LicenseSelector
from lictor.license.v1.validation_service_pb2 import ValidateLicenseRequest

from shared.embedded.postgres import EmbeddedPostgres
from tests.bench.load import PROGRAM, framed
from tests.helpers.builders import open_shop
from tests.helpers.lease import set_lease
from tests.helpers.serving import TRANSPORTS, serving
from tests.helpers.suite import World

VALIDATE: Final = "/lictor.license.v1.ValidationService/ValidateLicense"
WHO: Final = "/lictor.account.v1.AccountService/WhoAmI"
ROUNDS: Final = 3
CALLS_PER_S: Final = 100
CALLS: Final = 400
MOST: Final = 6.0
"""What keeps the promise from being lost unseen on a machine that others use too. The aim is 2: docs/limits.md tells what was
measured, and the test prints it."""
FINE_MS: Final = 25.0
"""A p99 that is no harm, whatever it is without the flood: a call that is answered from memory takes a millisecond alone."""

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        shutil.which(PROGRAM) is None, reason="NOT TESTED, floods: h2load is not installed (nghttp2-client)"
    ),
]


@dataclass(frozen=True)
class Calls:
    """One call, over and over, by one key."""

    url: str
    body: Path
    key: str

    def command(self, *arguments: str) -> list[str]:
        headers = (
            "content-type: application/grpc",
            "te: trailers",
            f"authorization: Bearer {self.key}",
            "grpc-timeout: 5S",
        )
        told = [part for header in headers for part in ("-H", header)]
        return [PROGRAM, *arguments, "-d", str(self.body), *told, self.url]


def calls_of(body: Path, url: str, request: Message, world: World) -> Calls:
    body.write_bytes(framed(request.SerializeToString()))
    return Calls(url, body, world.test_key)


async def p99_ms(calls: Calls, folder: Path) -> float:
    """Of calls at a steady rate, one connection; every one of them is answered well, or the test ends here."""
    log = folder / "log"
    log.unlink(missing_ok=True)
    arguments = ("-c", "1", "-m", "32", "--rps", str(CALLS_PER_S), "-n", str(CALLS), f"--log-file={log}")
    process = await asyncio.create_subprocess_exec(*calls.command(*arguments), stdout=asyncio.subprocess.PIPE)
    told, _ = await asyncio.wait_for(process.communicate(), 120)
    assert f"{CALLS} succeeded" in told.decode()
    taken = sorted(int(line.split("\t")[2]) / 1000 for line in log.read_text().splitlines())
    return taken[int(len(taken) * 0.99)]


@asynccontextmanager
async def flooded(calls: Calls) -> AsyncGenerator[None]:
    """As many calls as are answered, 32 in flight. The sender stands back behind the rest of the machine."""
    command = ["nice", "-n", "10", *calls.command("-c", "4", "-m", "8", "-D", "300")]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    try:
        await asyncio.sleep(0.5)  # its connections are open, and their first calls answered
        yield
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("kind", ["validations", "management calls"])
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_flood_moves_the_p99_of_another_tenant_by_little(
    postgres: EmbeddedPostgres, tmp_path: Path, transport: str, kind: str
) -> None:
    async with (
        serving(postgres, tmp_path, transport) as running,
        running.suite.world() as good,
        running.suite.world() as bad,
    ):
        await set_lease(postgres.admin_dsn(), 250)  # as in production: with a short one each call polls
        base = f"http://{running.listen.api}"
        made = await (await open_shop(good.test)).issue()
        ours = ValidateLicenseRequest(license=LicenseSelector(license_key=made.key))
        victim = calls_of(tmp_path / "victim", base + VALIDATE, ours, good)
        theirs = await (await open_shop(bad.test)).issue()
        request = ValidateLicenseRequest(license=LicenseSelector(license_key=theirs.key))
        flood = calls_of(tmp_path / "flood", base + VALIDATE, request, bad)
        if kind == "management calls":
            flood = calls_of(tmp_path / "flood", base + WHO, WhoAmIRequest(), bad)
        await p99_ms(victim, tmp_path)
        ratios: list[float] = []
        beside: list[float] = []
        for _ in range(ROUNDS):
            alone = await p99_ms(victim, tmp_path)
            async with flooded(flood):
                beside.append(await p99_ms(victim, tmp_path))
            ratios.append(beside[-1] / alone)
    ms, all_ms = median(beside), ", ".join(f"{one:.1f}" for one in beside)
    told = f"{transport}, {kind}: {median(ratios):.2f} of {', '.join(f'{ratio:.2f}' for ratio in sorted(ratios))}; {all_ms} ms"
    print(told)
    assert median(ratios) <= MOST or ms <= FINE_MS, told
