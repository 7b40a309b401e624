"""`lictor licenses import`: a file comes in whole and once, however often the run is killed; what is bad is told by line."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
from pathlib import Path
from time import monotonic

import pytest

from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.builders import Shop, key_with, open_shop, unchanged
from tests.helpers.serving import serving, until
from tests.helpers.suite import Suite, World
from tests.helpers.transfer import (
    ended,
    many,
    mode_of,
    read,
    refuse_bad_keys,
    refuse_lost_or_twice,
    run,
    size_of,
    start,
    write,
)


async def killed_until_done(
    suite: Suite, world: World, arguments: list[str | Path], journal: Path, *, live_s: tuple[float, float], kills: int
) -> tuple[str, int, float]:
    """Runs an import, killing it at random moments after it has sent something; what the last run said, how many were
    killed, and how long they all took."""
    dice, killed, took_s = random.Random(7), 0, 0.0
    while True:
        began = monotonic()
        process = await start(suite, world.test_key, "import", *arguments)
        try:
            if killed < kills:
                size = size_of(journal)
                await until(lambda: process.returncode is not None or size_of(journal) > size, 60)  # noqa: B023 - ends here
                await asyncio.wait_for(process.wait(), dice.uniform(*live_s))
            done = await ended(process)
            assert done.status == 0, done.err
            return done.err, killed, took_s + monotonic() - began
        except TimeoutError:
            process.kill()
            await process.wait()
            killed += 1
        finally:
            took_s += monotonic() - began


@pytest.mark.parametrize("named", [True, False])
async def test_a_killed_import_goes_on_and_nothing_comes_twice(
    suite: Suite, world: World, tmp_path: Path, named: bool
) -> None:
    shop = await open_shop(world.test)
    lines = many(shop.policy.policy_id, 2_000, named=named)
    file, keys = write(tmp_path / "licenses.jsonl", lines), tmp_path / "keys"
    arguments: list[str | Path] = [file, "--keys-out", keys, "--batch-lines", "40", "--in-flight", "3"]
    said, killed, _ = await killed_until_done(
        suite, world, arguments, tmp_path / "licenses.jsonl.journal", live_s=(0.0, 0.15), kills=4
    )
    assert killed == 4, said
    await refuse_lost_or_twice(suite, world, 2_000)
    await refuse_bad_keys(world, lines, keys, every=37)
    again = await run(suite, world.test_key, "import", *arguments)
    assert (again.status, "2,000 licenses made, 0 there already (2,000 of them confirmed" in again.err) == (0, True)
    await refuse_lost_or_twice(suite, world, 2_000)


@pytest.mark.long
@pytest.mark.together
@pytest.mark.timeout(900)
@pytest.mark.parametrize("transport", ["grpcio", "envoy"])
async def test_a_hundred_thousand(postgres: EmbeddedPostgres, tmp_path: Path, transport: str) -> None:
    count = 100_000
    async with serving(postgres, tmp_path, transport) as served, served.suite.world() as world:
        suite = served.suite
        shop = await open_shop(world.test)
        lines = many(shop.policy.policy_id, count)
        file, keys = write(tmp_path / "licenses.jsonl", lines), tmp_path / "keys"
        said, killed, took_s = await killed_until_done(
            suite, world, [file, "--keys-out", keys], tmp_path / "licenses.jsonl.journal", live_s=(0.2, 3.0), kills=8
        )
        assert killed == 8, said
        print(
            f"{transport}: {count} licenses in {took_s:.1f} s with {killed} kills, {count / took_s:.0f}/s; last: {said}"
        )
        await refuse_lost_or_twice(suite, world, count)
        await refuse_bad_keys(world, lines, keys, every=count // 500 + 1)


async def test_without_the_journal_named_licenses_are_already_there(suite: Suite, world: World, tmp_path: Path) -> None:
    shop = await open_shop(world.test)
    file = write(tmp_path / "f", many(shop.policy.policy_id, 60))
    journal, other = tmp_path / "f.journal", tmp_path / "other"
    assert (await run(suite, world.test_key, "import", file, "--keys-out", tmp_path / "keys")).status == 0
    journal.unlink()
    # Cut in another way, so that no call is one of before.
    again = await run(
        suite, world.test_key, "import", file, "--keys-out", tmp_path / "more", "--batch-lines", "7", "--journal", other
    )
    assert (again.status, "0 licenses made, 60 there already" in again.err) == (0, True), again.err
    assert read(tmp_path / "more") == []
    await refuse_lost_or_twice(suite, world, 60)


async def test_assigned_names_do_the_same_for_lines_without(suite: Suite, world: World, tmp_path: Path) -> None:
    shop = await open_shop(world.test)
    file = write(tmp_path / "f", many(shop.policy.policy_id, 30, named=False))
    for batch_lines, words in (("10", "30 licenses made, 0 there"), ("7", "0 licenses made, 30 there")):
        done = await run(
            suite, world.test_key, "import", file, "--assign-external-ids", "--batch-lines", batch_lines,
            "--journal", tmp_path / f"journal-{batch_lines}", "--keys-out", tmp_path / f"keys-{batch_lines}",
        )  # fmt: skip
        assert (done.status, words in done.err) == (0, True), done.err
    await refuse_lost_or_twice(suite, world, 30)


def with_bad_lines(shop: Shop) -> list[dict[str, object] | str]:
    lines: list[dict[str, object] | str] = [*many(shop.policy.policy_id, 40)]
    lines[3] = "not json"
    lines[7] = {"policy_id": shop.policy.policy_id, "nonsense": 1}
    lines[11] = ""
    lines[15] = {"policy_id": "pol_none", "key": "SECRET-KEY-15"}
    lines[27] = {
        "policy_id": shop.policy.policy_id,
        "external_id": "x-2",
        "perpetual": True,
        "metadata": {"number": 27},
    }
    lines[33] = {"policy_id": shop.policy.policy_id, "key": "short", "status_reason": "x"}
    return lines


BAD = {4, 8, 16, 28, 34}


def told(err: str) -> set[int]:
    return {int(number) for number in re.findall(r"^line (\d+): ", err, re.MULTILINE)}


async def test_a_dry_run_tells_every_bad_line_and_stores_nothing(suite: Suite, world: World, tmp_path: Path) -> None:
    shop = await open_shop(world.test)
    file = write(tmp_path / "f", with_bad_lines(shop))
    async with unchanged(suite, world):
        done = await run(suite, world.test_key, "import", file, "--dry-run", "--batch-lines", "10")
    assert (done.status, told(done.err)) == (1, BAD), done.err
    assert "5 of 39 lines are bad" in done.err
    assert "SECRET-KEY-15" not in done.err + done.out
    assert "line 28: external_id: line 3 has it too" in done.err
    assert "line 34: key: LICENSE_KEY_INVALID" in done.err
    assert "line 34: status_reason: CONTRADICTION" in done.err
    assert os.listdir(tmp_path) == ["f"]


async def test_a_bad_line_stops_the_run_and_can_be_mended(suite: Suite, world: World, tmp_path: Path) -> None:
    shop = await open_shop(world.test)
    lines = many(shop.policy.policy_id, 40)
    good = lines[25]
    lines[25] = {**good, "policy_id": "pol_none"}
    file = write(tmp_path / "f", lines)
    arguments = ("import", file, "--keys-out", tmp_path / "keys", "--batch-lines", "10")
    stopped = await run(suite, world.test_key, *arguments)
    assert (stopped.status, told(stopped.err)) == (1, {26}), stopped.err
    assert "Mend these lines" in stopped.err
    lines[25] = good
    write(file, lines)
    done = await run(suite, world.test_key, *arguments)
    assert (done.status, "40 licenses made" in done.err) == (0, True), done.err
    await refuse_lost_or_twice(suite, world, 40)
    await refuse_bad_keys(world, lines, tmp_path / "keys", every=1)


async def test_bad_lines_can_be_left_out_and_are_kept(suite: Suite, world: World, tmp_path: Path) -> None:
    shop = await open_shop(world.test)
    lines = with_bad_lines(shop)
    file = write(tmp_path / "f", lines)
    arguments = (
        "import",
        file,
        "--skip-bad",
        "--keys-out",
        tmp_path / "keys",
        "--batch-lines",
        "10",
        "--in-flight",
        "1",
    )
    for _ in range(2):
        done = await run(suite, world.test_key, *arguments)
        assert (done.status, "34 licenses made" in done.err) == (0, True), done.err
        rejects = tmp_path / "f.rejects"
        assert mode_of(rejects) == 0o600
        assert rejects.read_text().splitlines() == [
            line if isinstance(line, str) else json.dumps(line)
            for number, line in enumerate(lines, start=1)
            if number in BAD
        ]
    async with suite.admin() as admin:
        count = await admin.fetchval("SELECT count(*) FROM license.license WHERE account_id = $1", world.account_id)
    assert count == 34


async def test_what_was_sent_may_not_change(suite: Suite, world: World, tmp_path: Path) -> None:
    shop = await open_shop(world.test)
    lines = many(shop.policy.policy_id, 20)
    file = write(tmp_path / "f", lines)
    arguments = ("import", file, "--keys-out", tmp_path / "keys", "--batch-lines", "10")
    assert (await run(suite, world.test_key, *arguments)).status == 0
    lines[5]["display_name"] = "another"
    write(file, lines)
    stopped = await run(suite, world.test_key, *arguments)
    assert (stopped.status, "lines 1 to 10" in stopped.err, "have changed since" in stopped.err) == (1, True, True)


async def test_an_answer_that_never_came_is_not_guessed_a_day_later(suite: Suite, world: World, tmp_path: Path) -> None:
    shop = await open_shop(world.test)
    for named, status in ((False, 1), (True, 0)):
        file = write(tmp_path / f"f-{named}", many(shop.policy.policy_id, 10, named=named))
        journal, keys = tmp_path / f"f-{named}.journal", tmp_path / f"keys-{named}"
        prefix = {True: "NAMED-", False: "BARE-"}[named]
        file.write_text(file.read_text().replace("OWN-KEY-", prefix))
        assert (await run(suite, world.test_key, "import", file, "--keys-out", keys)).status == 0
        head, sent, _ = journal.read_text().splitlines()
        journal.write_text("\n".join((head, json.dumps({**json.loads(sent), "sent_at": 1.0}), "")))
        done = await run(suite, world.test_key, "import", file, "--keys-out", keys)
        assert (done.status, "--send-uncertain" in done.err) == (status, not named), done.err
        if not named:
            sure = await run(suite, world.test_key, "import", file, "--keys-out", keys, "--send-uncertain")
            assert sure.status == 0, sure.err
    async with suite.admin() as admin:
        count = await admin.fetchval("SELECT count(*) FROM license.license WHERE account_id = $1", world.account_id)
    assert count == 20


async def test_generated_keys_are_never_lost_or_shown(suite: Suite, world: World, tmp_path: Path) -> None:
    shop = await open_shop(world.test)
    file, keys = write(tmp_path / "f", many(shop.policy.policy_id, 5)), tmp_path / "keys"
    async with unchanged(suite, world):
        refused = await run(suite, world.test_key, "import", file)
    assert (refused.status, "--keys-out" in refused.err) == (1, True)
    keys.write_text("something of mine\n")
    async with unchanged(suite, world):
        assert (await run(suite, world.test_key, "import", file, "--keys-out", keys)).status == 1
    assert keys.read_text() == "something of mine\n"
    done = await run(suite, world.test_key, "import", file, "--keys-out", tmp_path / "good")
    assert done.status == 0, done.err
    for found in read(tmp_path / "good"):
        assert found["key"] not in done.out + done.err + (tmp_path / "f.journal").read_text()


async def test_another_account_or_a_second_run_cannot_take_the_journal(
    suite: Suite, world: World, tmp_path: Path
) -> None:
    shop = await open_shop(world.test)
    file = write(tmp_path / "f", many(shop.policy.policy_id, 3))
    arguments = ("import", file, "--keys-out", tmp_path / "keys")
    assert (await run(suite, world.test_key, *arguments)).status == 0
    other = await run(suite, world.live_key, *arguments)
    assert (other.status, "with mode TEST, and this one has LIVE" in other.err) == (1, True), other.err


async def test_a_key_that_may_not_write_is_refused_at_once(suite: Suite, world: World, tmp_path: Path) -> None:
    shop = await open_shop(world.test)
    file = write(tmp_path / "f", many(shop.policy.policy_id, 3))
    reader = await key_with(world.test, "licenses:read")
    began = monotonic()
    done = await run(suite, reader, "import", file, "--keys-out", tmp_path / "keys")
    assert (done.status, "CALLER_NOT_ALLOWED" in done.err, monotonic() - began < 20) == (1, True, True), done.err
