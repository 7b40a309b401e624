"""What Envoy refuses by itself on the JSON listener: each is a `google.rpc.Status` that tells why."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator

import pytest
import pytest_asyncio
from lictor import AsyncLictor, Unimplemented

from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.json_http import Answer, JsonClient, assert_refusal, json_client
from tests.helpers.serving import Served, json_listen, needs_envoy, serving
from tests.helpers.suite import World

pytestmark = needs_envoy
MIB = 1024 * 1024


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="served")
async def _served(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Served]:
    async with serving(postgres, tmp_path_factory.mktemp("json"), "envoy", json_listen()) as running:
        yield running
    assert "Traceback" not in running.log(), running.log()


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="there")
async def _there(served: Served) -> AsyncIterator[World]:
    async with served.suite.world() as world:
        yield world


@pytest_asyncio.fixture(loop_scope="session", name="http")
async def _http(served: Served, there: World) -> AsyncIterator[JsonClient]:
    async with json_client(served.listen.json, there.test_key) as client:
        yield client


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'{"code":', "Unexpected end"),
        (b'{"code": "A" "B"}', "Expected"),
        (b"nonsense", "Unexpected token"),
        (b"[]", "must be a message"),
        (b'{"code": 1}', "TYPE_STRING"),
        (b'{"code": "A\xff"}', "UTF-8"),
        (b'{"labels": "x"}', "labels"),
    ],
)
async def test_bodies_that_cannot_be_read(http: JsonClient, raw: bytes, words: str) -> None:
    answer = await http.call("POST", "/v1/products", raw=raw)
    assert_refusal(answer, 400, "MESSAGE_MALFORMED", words)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/products?nope=1", "nope"),
        ("/v1/products?pageSize=many", "page_size"),
        ("/v1/licenses?status=sleeping", "status"),
        ("/v1/products/a%2Fb", "escaped slash"),
        ("/v1/products/a%5Cb", "escaped slash"),
        ("/v1/products/a%00b", "NUL"),
    ],
)
async def test_paths_and_queries_that_cannot_be_read(http: JsonClient, path: str, words: str) -> None:
    assert_refusal(await http.call("GET", path), 400, "MESSAGE_MALFORMED", words)


async def test_bad_utf8_in_a_path_or_a_query_is_named_by_its_field(http: JsonClient) -> None:
    in_path = await http.call("GET", "/v1/products/a%FFb")
    assert (in_path.status, in_path.violations) == (400, [("product_id", "UTF8_INVALID")])
    in_query = await http.call("GET", "/v1/products?pageToken=%FF")
    assert (in_query.status, in_query.violations) == (400, [("page_token", "UTF8_INVALID")])


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", "/v1/nowhere"),
        ("GET", "/"),
        ("PUT", "/v1/products"),
        ("OPTIONS", "/v1/products"),
        ("GET", "/v1//products"),
        ("POST", "/lictor.account.v1.AccountService/WhoAmI"),
        ("POST", "/grpc.health.v1.Health/Check"),
    ],
)
async def test_paths_that_no_method_answers(http: JsonClient, verb: str, path: str) -> None:
    answer = await http.call(verb, path, {} if verb == "POST" else None)
    assert_refusal(answer, 404, "", verb)


async def test_head_is_refused_without_a_body(http: JsonClient) -> None:
    async with http.session.head(f"{http.base}/v1/whoami") as answer:
        assert (answer.status, await answer.read()) == (404, b"")


async def test_the_size_of_a_body(http: JsonClient) -> None:
    frame = b'{"displayName":"%s"}'
    for size in (900 * 1024, MIB):
        taken = await http.call("POST", "/v1/products", raw=frame % (b"x" * (size - len(frame) + 2)))
        assert (taken.status, taken.violations[0]) == (400, ("code", "REQUIRED")), "it came through to our own checks"
    for size in (MIB + 1, 5 * MIB):
        large = await http.call("POST", "/v1/products", raw=frame % (b"x" * (size - len(frame) + 2)))
        assert_refusal(large, 413, "MESSAGE_TOO_LARGE", "1 MiB")


async def test_the_size_of_headers(http: JsonClient) -> None:
    for headers in ({"x-long": "x" * 17_000}, {f"x-{number}": "x" for number in range(120)}):
        answer = await http.call("GET", "/v1/whoami", headers=headers)
        assert_refusal(answer, 431, "METADATA_TOO_LARGE", "16 KiB")


async def sent(served: Served, request: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to bytes that no HTTP client would send."""
    reader, writer = await asyncio.open_connection(served.listen.host, served.listen.json_port)
    try:
        writer.write(request)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        size = re.search(rb"content-length: (\d+)", head)
        assert size is not None
        assert b"content-type: application/json" in head
        return int(head.split()[1]), await reader.readexactly(int(size[1]))
    finally:
        writer.close()
        await writer.wait_closed()


NOT_HTTP = [
    (b"GARBAGE\r\n\r\n", 400, "cannot be read"),
    (b"GET whoami HTTP/1.1\r\nhost: a\r\n\r\n", 400, "cannot be read"),
    (b"GET /v1/whoami HTTP/1.1\r\nhost: a\r\nno colon\r\n\r\n", 400, "cannot be read"),
    (b"GET /v1/whoami HTTP/1.1\r\n\r\n", 400, "cannot be read"),
    (b"GET /v1/whoami#a HTTP/1.1\r\nhost: a\r\n\r\n", 400, "path"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400, "read"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd", 400, "cannot be read"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n", 501, "chunked"),
    (b"GET /v1/whoami HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", 403, "upgraded"),
    (b"GET /v1/whoami HTTP/1.0\r\nhost: a\r\n\r\n", 426, "HTTP/1.0"),
]


@pytest.mark.parametrize(("wire", "status", "words"), NOT_HTTP)
async def test_what_is_not_http_is_answered_in_json(served: Served, wire: bytes, status: int, words: str) -> None:
    seen, body = await sent(served, wire)
    assert_refusal(Answer(seen, {}, json.loads(body)), status, "MESSAGE_MALFORMED", words)


async def test_a_request_that_does_not_arrive(served: Served) -> None:
    head = b"POST /v1/products HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    seen, body = await sent(served, head)
    assert_refusal(Answer(seen, {}, json.loads(body)), 408, "", "did not arrive")


async def test_grpc_is_refused_there(served: Served, there: World) -> None:
    async with AsyncLictor(api_key=there.test_key, endpoint=served.listen.json) as client:
        with pytest.raises(Unimplemented, match="METHOD_UNKNOWN"):
            await client.whoami()
