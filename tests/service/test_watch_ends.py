"""How a stream of licenses ends: with its credential, with the process, and where its caller asks too much of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from lictor.common.v1.common_pb2 import View

from services.license import watch_hub, watch_marks
from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.builders import open_shop, refused_by
from tests.helpers.echo import Refusal
from tests.helpers.serving import TRANSPORTS, counted, serving, until
from tests.helpers.suite import Suite, World, running_suite
from tests.helpers.watching import Kind, Watcher, watching


async def streams(suite: Suite) -> float:
    """How many streams the process has."""
    return await counted(suite, "lictor_watch_streams")


async def no_streams(suite: Suite) -> None:
    """Waits until those of earlier tests have ended, which the process may hear of a second later."""

    async def none() -> bool:
        return await streams(suite) == 0

    await until(none)


async def ended(watcher: Watcher) -> Refusal:
    return await refused_by(watcher.refused())


async def test_a_revoked_key_takes_its_streams_with_it(suite: Suite, world: World) -> None:
    license_id = (await (await open_shop(world.test)).issue()).license.license_id
    made = await world.test.api_keys.create(scopes=["licenses:read"])
    async with watching(suite, made.secret) as watcher, watching(suite, world.test_key) as other:
        await world.test.api_keys.revoke(made.api_key.api_key_id)
        await world.test.licenses.suspend(license_id)
        found = await ended(watcher)
        assert (found.code, found.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID")
        assert watcher.code(license_id) == "VALID", "what happened after the revocation had returned is not told"
        await other.until_code(license_id, "SUSPENDED")


async def test_a_key_that_ends_by_time_takes_its_streams_with_it(suite: Suite, world: World) -> None:
    ends = datetime.now(UTC) + timedelta(seconds=2)
    key = (await world.test.api_keys.create(scopes=["licenses:read"], expire_time=ends)).secret
    async with watching(suite, key) as watcher:
        assert (await ended(watcher)).reason == "CREDENTIALS_INVALID"
        assert ends <= datetime.now(UTC) <= ends + timedelta(seconds=1)


async def test_a_suspended_account_has_no_streams(suite: Suite, world: World) -> None:
    async with (
        suite.client(suite.operator_key) as operator,
        suite.world() as stranger,
        watching(suite, world.live_key) as watcher,
        watching(suite, stranger.live_key) as other,
    ):
        await operator.accounts.suspend(world.account_id)
        assert (await ended(watcher)).reason == "CREDENTIALS_INVALID"
        assert (await other.next()).kind == Kind.BOOKMARK


async def test_an_account_has_so_many_streams_at_a_process(suite: Suite, world: World) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(watch_hub.MAX_ACCOUNT_STREAMS - 1):
            await stack.enter_async_context(watching(suite, world.test_key))
        async with watching(suite, world.live_key):
            async with watching(suite, world.test_key, complete=False) as watcher:
                found = await ended(watcher)
                assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
                assert found.retry_ms
            async with suite.world() as other, watching(suite, other.test_key):
                pass

        async def let_in() -> bool:
            async with watching(suite, world.test_key, complete=False) as watcher:
                try:
                    return (await watcher.next()).kind == Kind.SNAPSHOT_BEGUN
                except grpc.aio.AioRpcError:
                    return False

        await until(let_in)


async def test_a_caller_that_does_not_read_is_cut_and_holds_nothing(suite: Suite, world: World) -> None:
    """Its connection is its own, so that the room that HTTP/2 gives is its own too."""
    shop = await open_shop(world.test)
    labels = {f"l{n}": "x" * 200 for n in range(60)}
    await asyncio.gather(*(shop.issue(labels=labels) for _ in range(30)))
    options = (
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 65536),
        ("grpc.use_local_subchannel_pool", 1),
    )
    await no_streams(suite)
    async with (
        grpc.aio.insecure_channel(suite.bound.api_addr, options=options) as channel,
        watching(suite, world.test_key, view=View.BASIC, channel=channel) as watcher,
    ):
        assert await streams(suite) == 1

        async def cut() -> bool:
            await world.test.policies.update(shop.policy.policy_id, display_name=f"{os.urandom(4).hex()}")
            return await streams(suite) == 0

        await until(cut, 30)
        found = await ended(watcher)
    assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert found.retry_ms


async def test_no_more_changes_are_kept_for_a_caller_than_so_many(
    postgres: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_marks, "MAX_LICENSES", 5)
    async with running_suite(postgres, tmp_path) as suite, suite.world() as world:
        shop = await open_shop(world.test)
        ids = [(await shop.issue()).license.license_id for _ in range(6)]
        async with watching(suite, world.test_key) as watcher:
            async with suite.admin() as conn:
                await conn.execute("UPDATE license.license SET status = 'suspended' WHERE license_id = ANY ($1)", ids)
            assert (await ended(watcher)).reason == "OVERLOADED"


async def test_so_many_licenses_are_followed(
    postgres: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_hub, "MAX_ACCOUNT_FOLLOWED", 3)
    async with running_suite(postgres, tmp_path) as suite, suite.world() as world:
        shop = await open_shop(world.test)
        ids = [(await shop.issue()).license.license_id for _ in range(4)]
        async with watching(suite, world.test_key, license_ids=ids[1:]) as narrowed:
            assert set(narrowed.held) == set(ids[1:])
        async with watching(suite, world.test_key, complete=False) as watcher:
            assert (await ended(watcher)).reason == "OVERLOADED"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_process_that_leaves_ends_its_streams_with_draining(
    postgres: EmbeddedPostgres, tmp_path: Path, transport: str
) -> None:
    """The stream goes on at another process from where it ended."""
    async with (
        serving(postgres, tmp_path, transport) as leaving,
        serving(postgres, tmp_path, transport) as staying,
        leaving.suite.world() as world,
    ):
        shop = await open_shop(world.test)
        license_id = (await shop.issue()).license.license_id
        async with watching(leaving.suite, world.test_key) as watcher:
            os.kill(leaving.process.pid, signal.SIGTERM)
            found = await ended(watcher)
        assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert await leaving.ended() == 0
        async with staying.suite.client(world.test_key) as client:
            await client.licenses.suspend(license_id)
        more: dict[str, Any] = {"resume_token": watcher.token, "held": watcher.held}
        async with watching(staying.suite, world.test_key, complete=False, **more) as after:
            await after.until_code(license_id, "SUSPENDED")
            assert ("SNAPSHOT_BEGUN", "") not in after.told


async def test_a_caller_that_leaves_leaves_nothing_behind(suite: Suite, world: World) -> None:
    await no_streams(suite)
    async with watching(suite, world.test_key):
        assert await streams(suite) == 1

    async def gone() -> bool:
        return await streams(suite) == 0

    await until(gone)


def test_what_waits_is_bounded_and_each_thing_waits_once() -> None:
    def marked(count: int, touch: Callable[[watch_marks.Marks, int], None]) -> watch_marks.Marks:
        marks = watch_marks.Marks(watch_marks.Narrowed())
        for n in range(count):
            touch(marks, n)
        return marks

    most = watch_marks.MAX_LICENSES
    assert not marked(most, lambda marks, n: marks.touch("license", f"lic_{n}")).overflowed
    full = marked(2 * most, lambda marks, n: marks.touch("license", f"lic_{n}"))
    assert full.overflowed
    assert len(full) == most + 1
    assert len(marked(most * 2, lambda marks, n: marks.touch("license", f"lic_{n % 7}"))) == 7
    groups = marked(2 * watch_marks.MAX_GROUPS, lambda marks, n: marks.touch("policy", f"pol_{n}"))
    assert groups.overflowed
    assert len(groups) == watch_marks.MAX_GROUPS + 1
