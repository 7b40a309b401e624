"""`make bench` and `make soak` run from end to end, on far fewer calls than a figure needs."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from shared.crypto import root_secret
from shared.crypto.hashing import SecretHasher
from tests.bench import processes
from tests.bench.load import PROGRAM, Load, NotRunError, framed
from tests.bench.populate import populate
from tests.bench.soak_load import Kind
from tests.bench.spread import run_spread
from tests.helpers.builders import open_shop
from tests.helpers.embedded import TREE
from tests.helpers.serving import needs_envoy
from tests.helpers.suite import Suite, World

needs_proc = pytest.mark.skipif(not processes.available(), reason="NOT TESTED, the bench: this system has no /proc")
needs_h2load = pytest.mark.skipif(
    shutil.which(PROGRAM) is None, reason="NOT TESTED, the bench: h2load is not installed (nghttp2-client)"
)
EMPTY = {
    "empty", "empty_envoy_bare", "empty_grpcio_chain", "empty_cpu", "empty_envoy_bare_cpu", "empty_grpcio_chain_cpu",
    "empty_p50",
}  # fmt: skip


def run(out: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
    """A module of the bench as `make` runs it, and the lines that it wrote."""
    paths = f"{TREE}:{TREE / 'clients' / 'python'}"
    done = subprocess.run(
        [sys.executable, "-m", *arguments, "--out", str(out)],
        capture_output=True, text=True, check=False, cwd=TREE, timeout=110, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    return done, [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.timeout(120)
@needs_h2load
@needs_proc
@needs_envoy
def test_the_empty_call_is_measured(tmp_path: Path) -> None:
    done, lines = run(tmp_path / "bench.jsonl", "tests.bench", "--only", "empty", "--rounds", "1", "--calls", "200")
    found = {line["name"]: line for line in lines}
    assert set(found) == EMPTY, done.stdout + done.stderr
    assert all(line["rounds"] == 1 for line in lines)
    assert all(line["ratio"] > 0 for line in lines)
    assert done.returncode == (found["empty"]["ratio"] < found["empty"]["must"])


@asynccontextmanager
async def listening(
    answer: Callable[[bytes, grpc.aio.ServicerContext[bytes, bytes]], Awaitable[bytes]],
) -> AsyncGenerator[str]:
    """A server that answers every call with `answer`; its address."""

    class Handler(grpc.GenericRpcHandler):
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
            return grpc.unary_unary_rpc_method_handler(answer) if handler_call_details.method == "/a.B/Do" else None

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


def many(folder: Path, messages: Sequence[bytes]) -> list[Path]:
    """One file with many requests."""
    file = folder / "many"
    file.write_bytes(b"".join(map(framed, messages)))
    return [file]


async def test_load_is_spread_evenly_over_many_requests(tmp_path: Path) -> None:
    seen: Counter[bytes] = Counter()
    told: set[tuple[str | bytes, bool]] = set()
    at_once = most_at_once = 0

    async def answer(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        nonlocal at_once, most_at_once
        at_once += 1
        most_at_once = max(most_at_once, at_once)
        seen[request] += 1
        metadata = dict(context.invocation_metadata() or ())
        told.add((metadata.get("authorization", ""), (context.time_remaining() or 0) <= 9))
        await asyncio.sleep(0.001)
        at_once -= 1
        return request * 3

    messages = [b"request %d" % n for n in range(20)]
    async with listening(answer) as address:
        load = Load(
            f"http://{address}/a.B/Do",
            many(tmp_path, messages),
            "Bearer " + "k" * 200,
            9,
            connections=2,
            streams=5,
            spread=True,
        )
        done = await run_spread(load, 2000)
    assert (done.calls, seen.total(), set(seen)) == (2000, 2000, set(messages))
    assert done.seconds > 0
    assert min(seen.values()) > 40, "100 are to be expected of each: fewer than 40 are 7 standard deviations away"
    assert told == {("Bearer " + "k" * 200, True)}
    assert 1 < most_at_once <= 10


async def test_load_in_order_sends_each_request_once_and_tells_what_each_took(tmp_path: Path) -> None:
    seen: Counter[bytes] = Counter()

    async def answer(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        del context
        seen[request] += 1
        await asyncio.sleep(0.02 if request == b"request 7" else 0.0)
        return request

    messages = [b"request %d" % n for n in range(40)]
    async with listening(answer) as address:
        url, bodies = f"http://{address}/a.B/Do", many(tmp_path, messages)
        load = Load(url, bodies, "Bearer k", connections=4, streams=1, spread=True, in_order=True)
        done = await run_spread(load, 30)
        assert seen == Counter(messages[:30])
        with pytest.raises(NotRunError, match="40 requests for 41 calls"):
            await run_spread(load, 41)
        assert not (await run_spread(replace(load, streams=2), 30)).latencies_us
    assert len(done.latencies_us) == 30
    assert list(done.latencies_us) == sorted(done.latencies_us)
    assert done.latencies_us[-1] >= 20_000
    assert done.percentile_ms(1) == done.latencies_us[-1] / 1000


async def test_load_that_is_not_answered_is_no_load(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def never(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        del request, context
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(listening(never))
        load = Load(f"http://{address}/a.B/Do", many(tmp_path, [b"x"]), "Bearer k", spread=True)
        running = asyncio.create_task(run_spread(load, 10))
        await asked.wait()
        await stack.aclose()
        with pytest.raises(NotRunError, match="10 calls: BrokenError"):
            await running
        with pytest.raises(NotRunError, match="10 calls: ConnectionRefusedError"):
            await run_spread(load, 10)


async def test_licenses_by_the_thousand_are_as_others_are(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    template = await shop.issue(display_name="One of many")
    hasher = SecretHasher(root_secret.load(suite.settings.root_secret_file))
    async with suite.admin() as admin:
        logged = "SELECT count(*) FROM record.change_log WHERE key LIKE $1"
        before = await admin.fetchval(logged, f"{world.account_id}/%")
        issued = await populate(admin, template.license.license_id, hasher, 30)
        assert await admin.fetchval(logged, f"{world.account_id}/%") == before
        assert len({one.license_id for one in issued} | {one.key for one in issued}) == 60
        for one in issued:
            answer = await world.test.validate(key=one.key)
            assert (answer.valid, answer.license_id) == (True, one.license_id)
        made = await world.test.licenses.get(issued[0].license_id)
        assert made.key_hint == issued[0].key[-4:]
        for field in ("license_id", "key_hint"):
            made.ClearField(field)
            template.license.ClearField(field)
        assert made == template.license
        # What happens to them later is logged as ever.
        await world.test.licenses.suspend(issued[0].license_id)
        key = f"{world.account_id}/TEST/{issued[0].license_id}"
        assert (
            await admin.fetchval("SELECT count(*) FROM record.change_log WHERE kind = 'license' AND key = $1", key) == 1
        )
        assert not (await world.test.validate(key=issued[0].key)).valid


@pytest.mark.long
@pytest.mark.timeout(120)
@needs_h2load
@needs_proc
@needs_envoy
def test_validations_and_revocations_are_measured(tmp_path: Path) -> None:
    only = "validate_hot,validate_batch,validate_record,revoke_p99"
    done, lines = run(
        tmp_path / "bench.jsonl", "tests.bench", "--only", only, "--rounds", "1", "--calls", "400"
    )  # fmt: skip
    assert {line["name"] for line in lines if line["rounds"] == 1} >= {
        "validate_hot", "validate_hot_envoy", "validate_hot_p50", "validate_batch", "validate_record", "revoke_p99",
    }, done.stdout + done.stderr  # fmt: skip
    assert all(line["ratio"] > 0 for line in lines)
    revoked = next(line for line in lines if line["name"] == "revoke_p99")
    assert revoked["ratio"] >= 1, "a revocation returned before its effect"


@pytest.mark.long
@pytest.mark.timeout(120)
@needs_h2load
@needs_proc
@needs_envoy
def test_activations_are_measured(tmp_path: Path) -> None:
    done, lines = run(tmp_path / "bench.jsonl", "tests.bench", "--only", "activate", "--rounds", "1", "--calls", "640")
    found = {line["name"]: line for line in lines}
    assert set(found) == {
        "activate", "activate_p50", "activate_p99", "activate_cpu", "activate_statements",
    }, done.stdout + done.stderr  # fmt: skip
    assert all(line["rounds"] == 1 for line in lines), done.stdout + done.stderr
    assert all(line["ratio"] > 0 for line in lines)
    assert found["activate_p50"]["value"] <= found["activate_p99"]["value"]
    assert found["activate_p50"]["baseline"] <= found["activate_p99"]["baseline"]


@pytest.mark.long
@pytest.mark.timeout(120)
@needs_proc
@needs_envoy
def test_a_short_soak_goes_well(tmp_path: Path) -> None:
    done, lines = run(tmp_path / "soak.jsonl", "tests.bench.soak", "--minutes", "0.2")
    result = lines[-1]
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(result["made"]) == set(Kind)
    assert (result["failed"], result["faults"], result["none_of"]) == ({}, 0, [])
    assert len(lines) - 1 >= 10
    assert all(look["rss_kib"] for look in lines[:-1])
    assert {one["name"] for one in result["processes"]} >= {"envoy"}
