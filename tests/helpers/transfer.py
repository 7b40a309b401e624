"""Files of licenses, the `lictor licenses` process that works on them, and a look at what came of it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.embedded import TREE
from tests.helpers.suite import Suite, World


@dataclass(frozen=True)
class Ended:
    """A process that has come to its end."""

    status: int
    out: str
    err: str


async def start(suite: Suite, key: str, *arguments: str | Path) -> asyncio.subprocess.Process:
    """`lictor licenses ...` with an API key, against the suite."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.cli", "licenses", *map(str, arguments),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=TREE,
        env={**os.environ, "LICTOR_ENDPOINT": suite.bound.api_addr, "LICTOR_API_KEY": key},
    )  # fmt: skip


async def run(suite: Suite, key: str, *arguments: str | Path) -> Ended:
    """The same, to its end."""
    return await ended(await start(suite, key, *arguments))


async def ended(process: asyncio.subprocess.Process) -> Ended:
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


def write(path: Path, lines: Sequence[Mapping[str, Any] | str]) -> Path:
    """A file of these lines; a string is written as it is."""
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def size_of(path: Path) -> int:
    """0 for a file that is not there."""
    return path.stat().st_size if path.exists() else 0


def many(policy_id: str, count: int, *, named: bool = True) -> list[dict[str, Any]]:
    """Licenses of all sorts: every third with a key of its own, many customers with several, every tenth suspended."""
    return [
        {
            "policy_id": policy_id,
            **({"external_id": f"x-{number}"} if named else {}),
            **({"key": f"OWN-KEY-{number:08}"} if number % 3 == 0 else {}),
            "customer": {"email": f"c{number % (count // 4 + 1)}@example.com", "display_name": "C"},
            **({"status": "suspended", "status_reason": "unpaid"} if number % 10 == 0 else {}),
            "metadata": {"number": number},
            "create_time": "2020-01-02T03:04:05Z",
            "perpetual": True,
        }
        for number in range(count)
    ]


async def refuse_lost_or_twice(suite: Suite, world: World, count: int) -> None:
    """Fails unless the account has `count` licenses, each from another line, with one event each and one for each customer."""
    async with suite.admin() as admin:
        numbers = await admin.fetch(
            "SELECT (metadata ->> 'number')::float::int AS number FROM license.license WHERE account_id = $1",
            world.account_id,
        )
        created = await admin.fetch(
            "SELECT e.subject, count(*) AS events, count(o.event_id) AS waiting FROM record.event AS e "
            "LEFT JOIN record.outbox AS o USING (account_id, mode, event_id) "
            "WHERE e.account_id = $1 AND e.type IN ('license.created', 'customer.created') GROUP BY e.subject",
            world.account_id,
        )
        subjects = await admin.fetch(
            "SELECT license_id AS id FROM license.license WHERE account_id = $1 "
            "UNION ALL SELECT customer_id FROM license.customer WHERE account_id = $1",
            world.account_id,
        )
    times = Counter(row["number"] for row in numbers)
    assert set(times) == set(range(count)), f"{count - len(times)} are lost"
    assert [number for number, how_often in times.items() if how_often > 1] == []
    assert {row["subject"] for row in created} == {row["id"] for row in subjects}
    assert {(row["events"], row["waiting"]) for row in created} == {(1, 1)}


async def refuse_bad_keys(world: World, lines: Sequence[Mapping[str, Any]], keys: Path, every: int) -> None:
    """Fails unless each line without a key has one in the file of keys, and one of `every` keys validates."""
    generated = {found["line"]: found["key"] for found in read(keys)}
    bare = [number for number, line in enumerate(lines, start=1) if "key" not in line]
    assert sorted(generated) == bare
    assert len(read(keys)) == len(bare) == len(set(generated.values()))
    assert mode_of(keys) == 0o600
    for number, line in list(enumerate(lines, start=1))[::every]:
        verdict = await world.test.validate(key=line.get("key") or generated[number], timeout_s=10)
        assert verdict.code == ("SUSPENDED" if "status" in line else "VALID"), number
