"""Redis is reached by socket, by TCP with TLS, as a user of its own; and whoever answers in its place gets nowhere."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import pytest

from shared.embedded.valkey import SOCKET_NAME, EmbeddedValkey
from shared.freshness.breaker import FAILURES
from shared.freshness.redis_gets import REPLY_LIMIT_BYTES
from shared.freshness.redis_metrics import Get, Put
from shared.freshness.redis_tier import BUDGET_S
from tests.helpers.certificates import Authority
from tests.helpers.embedded import state_directory
from tests.helpers.redis_tier import (
    EPOCH,
    Handler,
    answering,
    emptied,
    hears_hints,
    hit,
    looking,
    passed_on_to,
    recovered,
    used_tier,
)
from tests.helpers.serving import until

LATE_S = 1.0
"""The budget, and what a busy machine may add."""


@pytest.fixture(scope="module", name="server")
def _server() -> Iterator[EmbeddedValkey]:
    with state_directory() as state, EmbeddedValkey(state) as server:
        yield server


@pytest.fixture
def valkey(server: EmbeddedValkey) -> EmbeddedValkey:
    """The module's server, empty."""
    return emptied(server)


async def test_a_user_with_a_password_and_a_database_of_its_own(valkey: EmbeddedValkey) -> None:
    path = valkey.socket_dir / SOCKET_NAME
    with looking(valkey) as client:
        commands = ("+mget", "+set", "+publish", "+subscribe", "+ping", "+select")
        client.execute_command(
            "ACL",
            "SETUSER",
            "lictor",
            "on",
            ">p@ss/word",
            "~lictor:*",
            "resetchannels",
            "&lictor:*",
            "-@all",
            *commands,
        )
    try:
        async with used_tier(f"unix://lictor:p%40ss%2Fword@{path}?db=3") as used:
            await used.put("one", b"facts")
            assert await used.get("one") == b"facts"
            await hears_hints(used)
        async with used_tier(valkey.dsn()) as elsewhere, used_tier(f"unix://lictor:wrong@{path}") as refused:
            assert await elsewhere.get("one") is None
            assert [await refused.get("one") for _ in range(4)] == [None] * 4
            assert refused.misses() == {"failed": 3, "skipped": 1}
    finally:
        with looking(valkey) as client:
            client.execute_command("ACL", "DELUSER", "lictor")


async def test_a_password_from_a_file_goes_before_one_in_the_address(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    password_file = tmp_path / "password"
    password_file.write_text("right\n")
    url = f"unix://lictor:wrong@{valkey.socket_dir / SOCKET_NAME}"
    with looking(valkey) as client:
        client.execute_command("ACL", "SETUSER", "lictor", "on", ">right", "~*", "&*", "+@all")
    try:
        async with used_tier(url, password_file=password_file) as used:
            await used.put("one", b"facts")
            assert await used.get("one") == b"facts"
    finally:
        with looking(valkey) as client:
            client.execute_command("ACL", "DELUSER", "lictor")


async def test_tls_to_who_has_the_right_certificate(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    authority, stranger = Authority(), Authority("stranger")
    ca_file = authority.write(tmp_path / "ca.pem")
    for signer, reached in ((authority, True), (stranger, False)):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*signer.server().write(tmp_path, "server"))
        async with (
            answering(passed_on_to(valkey), context) as port,
            used_tier(f"rediss://127.0.0.1:{port}?ssl_ca_certs={ca_file}") as used,
        ):
            outcome = Put.STORED if reached else Put.FAILED
            used.tier.put("one", EPOCH, b"facts")
            await until(lambda used=used, outcome=outcome: used.puts(outcome) == 1)
            assert await used.get("one") == (b"facts" if reached else None)


async def good_ping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"PING\r\n")
    writer.write(b"+PONG\r\n")


def saying(answer: bytes) -> Handler:
    """Answers one thing to whatever is asked."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await good_ping(reader, writer)
        while await reader.read(65536):
            writer.write(answer)

    return handle


STRANGERS: dict[str, bytes] = {
    "garbage": b"\x00\xff HTTP/1.1 400 Bad Request\r\n\r\n",
    "an error": b"-LOADING it loads\r\n",
    "an error that is no text": b"-\xff\xfe\xfd\r\n",
    "an error without a word": b"-\r\n",
    "a redirection": b"-MOVED 3999 127.0.0.1:6381\r\n",
    "no list": b":1\r\n",
    "a null": b"*-1\r\n",
    "too few": b"*0\r\n",
    "too many": b"*2\r\n$-1\r\n$-1\r\n",
    "a list of numbers": b"*1\r\n:7\r\n",
    "a list of lists": b"*1\r\n" * 5 + b"*0\r\n",
    "too deep a list": b"*1\r\n" * 500,
    "a list without an end": b"*4294967295\r\n",
    "half of an answer": b"*1\r\n$10\r\nfac",
    "more answers than questions": b"*1\r\n$-1\r\n" * 3,
}


@pytest.mark.parametrize("what", STRANGERS)
async def test_a_stranger_is_a_miss_in_time(what: str) -> None:
    async with (
        answering(saying(STRANGERS[what])) as port,
        used_tier(f"redis://127.0.0.1:{port}", budget_s=BUDGET_S) as used,
    ):
        for _ in range(5):
            begun = perf_counter()
            assert await used.get("one") is None
            assert perf_counter() - begun < LATE_S
            used.tier.put("one", EPOCH, b"facts")
        assert (used.gets(Get.HIT), used.puts(Put.STORED)) == (0, 0)


async def test_who_closes_or_says_nothing_is_a_miss_in_time() -> None:
    async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Ends at once."""

    async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    for handler in (closes, says_nothing):
        async with answering(handler) as port, used_tier(f"redis://127.0.0.1:{port}", budget_s=BUDGET_S) as used:
            for _ in range(5):
                begun = perf_counter()
                assert await used.get("one") is None
                assert perf_counter() - begun < LATE_S
            assert used.misses() == {"failed": FAILURES, "skipped": 5 - FAILURES}


async def test_an_answer_without_an_end_is_not_kept() -> None:
    """Half a gigabyte is announced: the tier stops at the size of the largest answer that it could have asked for."""
    sent_bytes = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent_bytes
        await good_ping(reader, writer)
        await reader.read(65536)
        writer.write(b"*1\r\n$536870912\r\n")
        while sent_bytes < 2**29:
            writer.write(bytes(1024 * 1024))
            await writer.drain()
            sent_bytes += 1024 * 1024

    async with answering(endless) as port, used_tier(f"redis://127.0.0.1:{port}") as used:
        assert await used.get("one") is None
        assert used.misses() == {"failed": 1}
        assert REPLY_LIMIT_BYTES / 2 < sent_bytes < 2 * REPLY_LIMIT_BYTES


async def test_a_slow_link_is_a_miss_and_a_quick_one_is_not(valkey: EmbeddedValkey) -> None:
    delay_s = 0.0

    async def delayed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(str(valkey.socket_dir / SOCKET_NAME))

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                await asyncio.sleep(delay_s)
                sink.write(data)

        await asyncio.gather(copy(reader, back), copy(there, writer))

    async with answering(delayed) as port, used_tier(f"redis://127.0.0.1:{port}", budget_s=BUDGET_S) as used:
        await used.put("one", b"facts")
        await hit(used)
        delay_s = 0.05
        for _ in range(4):
            begun = perf_counter()
            assert await used.get("one") is None
            assert perf_counter() - begun < LATE_S
        delay_s = 0.0
        await recovered(used)
        await hit(used)


async def test_a_connection_that_takes_longer_than_a_get_is_made_once_and_used(valkey: EmbeddedValkey) -> None:
    made = 0
    passing = passed_on_to(valkey)

    async def slow_to_begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal made
        made += 1
        await asyncio.sleep(8 * BUDGET_S)
        await passing(reader, writer)

    async with used_tier(valkey.dsn()) as other:
        await other.put("one", b"facts")
    async with answering(slow_to_begin) as port, used_tier(f"redis://127.0.0.1:{port}", budget_s=BUDGET_S) as used:
        # No probe comes to help: the clock stands still.
        await hit(used)
        assert used.gets(Get.FAILED) >= FAILURES
        assert made == 1
