"""The primary dies, and a synchronous standby is promoted: what was taken stays taken, and nothing of before is believed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
from lictor.common.v1.common_pb2 import LicenseSelector
from lictor.license.v1.validation_service_pb2 import ValidateLicenseRequest, ValidationCode
from pydantic import SecretStr

from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.builders import open_shop, send
from tests.helpers.embedded import kill, state_directory
from tests.helpers.links import link_to
from tests.helpers.serving import samples, until
from tests.helpers.standby import standby_of
from tests.helpers.suite import Suite, World, running_suite


async def validated(suite: Suite, world: World, key: str) -> str:
    request = ValidateLicenseRequest(license=LicenseSelector(license_key=key))
    return ValidationCode.Code.Name((await send(suite, request, world.test_key)).code)


async def drops(suite: Suite) -> float:
    async with aiohttp.ClientSession() as http, http.get(f"http://{suite.bound.ops_addr}/metrics") as answer:
        return samples(await answer.text(), "lictor_tail_drops_total").get((("why", "epoch"),), 0.0)


async def test_a_promoted_standby_begins_an_epoch_and_knows_what_was_taken(tmp_path: Path) -> None:
    with state_directory() as state, EmbeddedPostgres(state, durable=False) as primary:
        async with (
            link_to(primary.socket_dir) as link,
            running_suite(primary, tmp_path, postgres_dsn=SecretStr(link.dsn)) as suite,
            suite.world() as world,
            standby_of(primary) as standby,
        ):
            shop = await open_shop(world.test)
            kept, taken = await shop.issue(), await shop.issue()
            for made in (kept, taken, kept, taken):
                assert await validated(suite, world, made.key) == "VALID"
            dropped = await drops(suite)
            await world.test.licenses.revoke(taken.license.license_id)
            await asyncio.to_thread(kill, primary)
            link.target = standby.socket_dir
            await standby.promote()

            async def answered() -> bool:
                try:
                    assert await validated(suite, world, taken.key) == "REVOKED"
                    return True
                except grpc.aio.AioRpcError as error:
                    assert error.code() is grpc.StatusCode.UNAVAILABLE
                    return False

            await until(answered, 20)
            assert await validated(suite, world, kept.key) == "VALID"
            assert await drops(suite) == dropped + 1
            await world.test.licenses.suspend(kept.license.license_id)
            assert await validated(suite, world, kept.key) == "SUSPENDED"
