"""`client.licenses.watch()`: the same changes in both flavours, and on through restarts of the server."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from lictor import LicenseChange, Lictor, Unauthenticated, Unavailable

from shared.embedded.ports import free_listen
from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.builders import open_shop
from tests.helpers.serving import TRANSPORTS, serving, until
from tests.helpers.suite import Suite, World


async def upto(changes: AsyncIterator[LicenseChange], kind: str, code: str = "") -> list[LicenseChange]:
    """The next changes, the last of which has this kind and code."""
    found: list[LicenseChange] = []
    async with asyncio.timeout(30):
        async for change in changes:
            found.append(change)
            if change.kind == kind and (not code or (change.result is not None and change.result.code == code)):
                return found
    raise AssertionError("the iterator ended")


async def test_the_asyncio_client_tells_of_a_snapshot_and_of_changes(world: World) -> None:
    shop = await open_shop(world.test)
    license_id = (await shop.issue()).license.license_id
    changes = world.test.licenses.watch(policy_id=shop.policy.policy_id, view="BASIC")
    begun = await upto(changes, "SNAPSHOT_COMPLETE")
    assert [change.kind for change in begun] == ["SNAPSHOT_BEGUN", "SNAPSHOT", "SNAPSHOT_COMPLETE"]
    assert (begun[1].license_id, begun[1].result and begun[1].result.valid) == (license_id, True)
    assert begun[1].result is not None
    assert begun[1].result.license is not None
    assert begun[-1].resume_token
    await world.test.licenses.suspend(license_id)
    await upto(changes, "DELTA", "SUSPENDED")
    await world.test.licenses.delete(license_id)
    assert (await upto(changes, "DELETED"))[-1].license_id == license_id


async def test_the_blocking_client_tells_the_same(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    license_id = (await shop.issue()).license.license_id

    def follow(changes: Iterator[LicenseChange], kind: str) -> LicenseChange:
        return next(change for change in changes if change.kind == kind)

    with Lictor(api_key=world.test_key, endpoint=suite.bound.api_addr) as client:
        changes = client.licenses.watch(license_ids=[license_id])
        assert (await asyncio.to_thread(follow, changes, "SNAPSHOT")).license_id == license_id
        await world.test.licenses.revoke(license_id)
        told = await asyncio.to_thread(follow, changes, "DELTA")
        assert told.result is not None
        assert told.result.code == "REVOKED"


async def test_a_token_that_is_of_no_use_begins_anew_and_a_bad_key_is_an_error(suite: Suite, world: World) -> None:
    begun = await upto(world.test.licenses.watch(resume_token="x"), "SNAPSHOT_COMPLETE")
    assert begun[0].kind == "SNAPSHOT_BEGUN"
    async with suite.client("sk_test_nope") as stranger:
        with pytest.raises(Unauthenticated):
            await upto(stranger.licenses.watch(), "SNAPSHOT_BEGUN")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_server_that_restarts_is_nothing_that_the_caller_sees(
    postgres: EmbeddedPostgres, tmp_path: Path, transport: str
) -> None:
    listen = free_listen("127.0.0.1")
    async with serving(postgres, tmp_path, transport, listen) as served, served.suite.world() as world:
        shop = await open_shop(world.test)
        license_id = (await shop.issue()).license.license_id
        changes = world.test.licenses.watch()
        await upto(changes, "SNAPSHOT_COMPLETE")
        os.kill(served.process.pid, signal.SIGTERM)
        waiting = asyncio.create_task(upto(changes, "DELTA", "SUSPENDED"))
        assert await served.ended() == 0
        async with serving(postgres, tmp_path, transport, listen):

            async def reached() -> bool:
                try:
                    return bool(await world.test.whoami())
                except Unavailable:  # grpc waits for some seconds before it connects anew
                    return False

            await until(reached, 20)
            await world.test.licenses.suspend(license_id)
            assert "SNAPSHOT_BEGUN" not in {change.kind for change in await waiting}
