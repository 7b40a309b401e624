"""A failover: a standby decides nothing before it is promoted, and from then on it is the record."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import grpc.aio
from lictor.common.v1.common_pb2 import LicenseSelector
from lictor.license.v1.license_service_pb2 import CreateLicenseRequest, SuspendLicenseRequest
from lictor.license.v1.validation_service_pb2 import ValidateLicenseRequest

from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.builders import open_shop, send
from tests.helpers.echo import refusal
from tests.helpers.embedded import kill, state_directory
from tests.helpers.links import link_to
from tests.helpers.serving import serving, until
from tests.helpers.standby import standby_of

AWAY = (grpc.StatusCode.UNAVAILABLE, "RECORD_UNREACHABLE")


async def test_a_standby_is_no_record_until_it_is_promoted(tmp_path: Path) -> None:
    with state_directory() as state, EmbeddedPostgres(state, durable=False) as primary:
        async with (
            link_to(primary.socket_dir) as link,
            serving(primary, tmp_path, "grpcio", None, postgres_dsn=link.dsn) as served,
            served.suite.world() as world,
        ):
            shop = await open_shop(world.test)
            kept, ended = (await shop.issue()).license.license_id, (await shop.issue()).license.license_id
            create = CreateLicenseRequest(policy_id=shop.policy.policy_id)

            async def ask(request: ValidateLicenseRequest | CreateLicenseRequest) -> object:
                """The verdict, true for a license that was made, or why there is none."""
                try:
                    answer = await send(served.suite, request, world.test_key)
                except grpc.aio.AioRpcError as error:
                    return error.code(), refusal(error).reason
                return getattr(answer, "valid", True)

            def validation(license_id: str) -> ValidateLicenseRequest:
                return ValidateLicenseRequest(license=LicenseSelector(license_id=license_id))

            async with standby_of(primary) as standby:
                await send(served.suite, SuspendLicenseRequest(license_id=ended), world.test_key)
                assert (await ask(validation(kept)), await ask(validation(ended))) == (True, False)
                link.target = standby.socket_dir
                link.drop()

                async def is_away() -> bool:
                    return await ask(validation(kept)) == AWAY

                await until(is_away)  # after the lease
                for request in (validation(kept), validation(ended), create):
                    assert await ask(request) == AWAY
                await asyncio.to_thread(kill, primary)
                await standby.promote()

                async def is_back() -> bool:
                    return await ask(validation(kept)) is True

                await until(is_back)
                assert (await ask(validation(ended)), await ask(create)) == (False, True)
