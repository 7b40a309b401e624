"""JSON over HTTP: the contract through Envoy's transcoder, and every refusal of Envoy's own as a `google.rpc.Status`."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import aiohttp
import pytest
import pytest_asyncio

from services.license import app as license_app
from services.main import PACKAGES
from shared.clock import SystemClock
from shared.embedded.postgres import EmbeddedPostgres
from shared.rpc.envoy.json_listener import mapped_services
from shared.settings import Target
from tests.contract.reading import Rpc, rpcs
from tests.helpers.certificates import Authority
from tests.helpers.json_http import REQUEST_INFO, Answer, JsonClient, assert_refusal, json_client
from tests.helpers.serving import Served, ended, json_listen, launch, needs_envoy, serving, settled, until
from tests.helpers.suite import Suite, World

pytestmark = needs_envoy
MIB = 1024 * 1024
WORKLOAD = "spiffe://example.org/caller"
NOWHERE = "prod_00000000000000000000000000000000"


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="served")
async def _served(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Served]:
    async with serving(postgres, tmp_path_factory.mktemp("json"), "envoy", json_listen()) as running:
        yield running
    assert "Traceback" not in running.log(), running.log()
    assert "InvalidStateError" not in running.log(), running.log()


@pytest_asyncio.fixture(loop_scope="session", name="there")
async def _there(served: Served) -> AsyncIterator[World]:
    async with served.suite.world() as world:
        yield world


@pytest_asyncio.fixture(loop_scope="session", name="http")
async def _http(served: Served, there: World) -> AsyncIterator[JsonClient]:
    async with json_client(served.listen.json, there.test_key) as client:
        yield client


async def counted(served: Served) -> dict[str, float]:
    """How often each method was called so far, by its path."""
    found: dict[str, float] = {}
    for line in (await served.get("/metrics"))[1].splitlines():
        if line.startswith("lictor_calls_total{"):
            method, service = (cast("re.Match[str]", re.search(f'{name}="([^"]*)"', line))[1] for name in LABELS)
            path = f"{service}.{method}"
            found[path] = found.get(path, 0.0) + float(line.rpartition(" ")[2])
    return found


LABELS = ("method", "service")


async def product(http: JsonClient, code: str = "PROAPP") -> dict[str, Any]:
    made = await http.call("POST", "/v1/products", {"code": code, "displayName": "Pro App"})
    assert made.status == 200, made
    return made.body["product"]


async def policy(http: JsonClient, code: str = "PROAPP", **more: object) -> dict[str, Any]:
    of = (await product(http, code))["productId"]
    body = {"productId": of, "displayName": "Desktop", "template": "desktop_app", "requireFingerprint": False, **more}
    made = await http.call("POST", "/v1/policies", body)
    assert made.status == 200, made
    return made.body["policy"]


async def test_a_license_from_product_to_suspension(http: JsonClient, there: World, served: Served) -> None:
    made = await policy(http)
    issued = await http.call(
        "POST", "/v1/licenses", {"policyId": made["policyId"], "customer": {"email": "ada@example.com"}}
    )
    assert (issued.status, issued.body["license"]["status"]) == (200, "active")
    key, license_id = issued.body["key"], issued.body["license"]["licenseId"]

    asked = {"license": {"licenseKey": key}}
    valid = await http.call("POST", "/v1/licenses:validate", asked)
    assert (valid.body["valid"], valid.body["code"], valid.body["licenseId"]) == (True, "VALID", license_id)

    suspended = await http.call("POST", f"/v1/licenses/{license_id}:suspend", {"reason": "payment overdue"})
    assert suspended.body["license"]["status"] == "suspended"
    refused = await http.call("POST", "/v1/licenses:validate", asked)
    assert (refused.body["valid"], refused.body["code"]) == (False, "SUSPENDED")

    beside = await there.test.validate(key=key)
    assert beside.code == "SUSPENDED", "gRPC answers beside it"
    shown = re.search(r" json=(\S+)", served.log())
    assert shown is not None
    assert shown[1] == served.listen.json


async def test_a_key_set_is_what_rfc_7517_says_and_may_be_kept(http: JsonClient) -> None:
    made = await product(http, "JWKS")
    rotated = await http.call("POST", f"/v1/products/{made['productId']}:rotateSigningKey", {})
    assert rotated.status == 200, rotated
    key, path = rotated.body["signingKey"], f"/v1/keySets/{rotated.body['keySetId']}/jwks.json"
    async with aiohttp.ClientSession() as session, session.get(http.base + path) as answer:
        assert (answer.status, answer.headers["cache-control"]) == (200, "public, max-age=300")
        assert await answer.json() == {
            "keys": [
                {
                    "kty": "OKP", "crv": "Ed25519", "x": key["publicJwk"]["x"], "kid": key["signingKeyId"], "alg": "EdDSA",
                    "use": "sig",
                }
            ]
        }  # fmt: skip


async def test_every_mapping_leads_to_its_method(http: JsonClient, served: Served) -> None:
    before = await counted(served)
    for rpc in (rpc for rpc in rpcs() if rpc.verb):
        answer = await http.call(rpc.verb.upper(), path_of(rpc), {} if rpc.body else None)
        if answer.status != 200:
            assert answer.detail(REQUEST_INFO)["requestId"].startswith("call_"), (rpc.name, answer)
            assert answer.reason != "METHOD_UNKNOWN", rpc.name
        after = await counted(served)
        assert {name for name in after if after[name] != before.get(name, 0.0)} == {rpc.name}
        before = after


def path_of(rpc: Rpc) -> str:
    return re.sub(r"\{[^}]*\}", "nothing_here", rpc.pattern)


async def test_kinds_of_fields(http: JsonClient) -> None:
    made = await policy(http, heartbeatInterval="600s", requireHeartbeat=True, duration="86400s", maxMachines=3)
    assert (made["heartbeatInterval"], made["duration"], made["maxMachines"]) == ("600s", "86400s", 3)
    assert made["revision"] == "1", "64 bits do not fit into JSON's numbers"
    assert made["isTrial"] is False, "what is false is said"
    assert "maxUsers" not in made, "what is unset is not there"

    expires = (datetime.now(UTC) + timedelta(days=3)).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    body = {"policyId": made["policyId"], "expireTime": expires, "labels": {"region": "eu"}}
    issued = await http.call("POST", "/v1/licenses", body)
    assert issued.body["license"]["expireTime"] == expires
    assert issued.body["license"]["labels"] == {"region": "eu"}
    license_id = issued.body["license"]["licenseId"]

    for query in ("status=active&pageSize=1", "status=active&page_size=1", "status=1"):
        listed = await http.call("GET", f"/v1/licenses?{query}&productId={made['productId']}")
        assert [one["licenseId"] for one in listed.body["licenses"]] == [license_id]
    assert (await http.call("GET", "/v1/licenses?status=banned")).body == {"licenses": [], "nextPageToken": ""}

    # The mask names what is changed, in camelCase; what is set beside it stays.
    change = {"displayName": "New", "labels": {"region": "us"}, "updateMask": "displayName"}
    changed = (await http.call("PATCH", f"/v1/licenses/{license_id}", change)).body["license"]
    assert (changed["displayName"], changed["labels"]) == ("New", {"region": "eu"})

    scopes = {"displayName": "Reader", "scopes": ["licenses:read", "products:read"]}
    key = await http.call("POST", "/v1/apiKeys", scopes)
    assert key.body["apiKey"]["scopes"] == scopes["scopes"]

    structured = {"code": "STRUCT", "displayName": "S", "metadata": {"a": [1, None, {"b": True}]}}
    answer = await http.call("POST", "/v1/products", structured)
    assert answer.body["product"]["metadata"] == structured["metadata"]
    # As in Google's gateways: what a newer client says beside is not an error.
    unknown = await http.call("POST", "/v1/products", {"code": "UNKN", "display_name": "U", "newer": {"field": 1}})
    assert (unknown.status, unknown.body["product"]["displayName"]) == (200, "U")


async def test_errors_are_those_of_grpc(http: JsonClient, there: World) -> None:
    invalid = await http.call("POST", "/v1/products", {"code": "", "displayName": ""})
    assert (invalid.status, invalid.body["code"], invalid.reason) == (400, 3, "FIELD_INVALID")
    assert invalid.violations == [("code", "REQUIRED"), ("display_name", "REQUIRED")]

    missing = await http.call("GET", f"/v1/products/{NOWHERE}")
    assert (missing.status, missing.body["code"], missing.reason) == (404, 5, "PRODUCT_NOT_FOUND")
    assert missing.detail(REQUEST_INFO)["requestId"].startswith("call_")

    stranger = await http.with_key("sk_test_nobody").call("GET", "/v1/whoami")
    assert (stranger.status, stranger.body["code"], stranger.reason) == (401, 16, "CREDENTIALS_INVALID")
    forbidden = await http.call("GET", "/v1/accounts")
    assert (forbidden.status, forbidden.body["code"], forbidden.reason) == (403, 7, "CALLER_NOT_ALLOWED")

    made = await product(http)
    taken = await http.call("POST", "/v1/products", {"code": "PROAPP", "displayName": "P"})
    assert (taken.status, taken.body["code"], taken.reason) == (409, 6, "CODE_TAKEN")
    stale = {"displayName": "Q", "etag": "r9"}
    mismatch = await http.call("PATCH", f"/v1/products/{made['productId']}", stale)
    assert (mismatch.status, mismatch.body["code"], mismatch.reason) == (409, 10, "ETAG_MISMATCH")
    plan = {"productId": made["productId"], "displayName": "P", "template": "desktop_app"}
    await http.call("POST", "/v1/policies", plan)
    in_use = await http.call("DELETE", f"/v1/products/{made['productId']}")
    assert (in_use.status, in_use.body["code"], in_use.reason) == (400, 9, "RESOURCE_IN_USE")
    async with http.session.get(f"{http.base}/v1/whoami") as without_key:
        assert (without_key.status, (await without_key.json())["code"]) == (401, 16)


async def test_a_path_may_not_be_contradicted(http: JsonClient) -> None:
    first, second = await product(http, "FIRST"), await product(http, "SECOND")
    path = f"/v1/products/{first['productId']}"
    camel = await http.call("PATCH", path, {"productId": second["productId"], "displayName": "X"})
    assert (camel.status, camel.violations) == (400, [("product_id", "GIVEN_TWICE")])
    snake = await http.call("PATCH", path, {"product_id": second["productId"], "displayName": "X"})
    assert_refusal(snake, 400, "MESSAGE_MALFORMED", "conflicting")
    for verb in ("GET", "DELETE"):
        for name in ("productId", "product_id"):
            answer = await http.call(verb, f"{path}?{name}={second['productId']}")
            assert (answer.status, answer.violations) == (400, [("product_id", "GIVEN_TWICE")])
    in_a_body = await http.call("DELETE", path, {"productId": second["productId"]})
    assert (in_a_body.status, in_a_body.violations) == (400, [("product_id", "GIVEN_TWICE")])

    for one in (first, second):
        kept = await http.call("GET", f"/v1/products/{one['productId']}")
        assert kept.body["product"] == one, "nothing was written"
    same = await http.call("PATCH", path, {"productId": first["productId"], "displayName": "Same"})
    assert (same.status, same.body["product"]["displayName"]) == (200, "Same")


async def test_an_answer_larger_than_every_buffer(http: JsonClient) -> None:
    about = {"text": "x" * 7000}
    bodies = [{"code": f"BIG{number}", "displayName": "B", "metadata": about} for number in range(300)]
    await asyncio.gather(*(http.call("POST", "/v1/products", body) for body in bodies))
    listed = await http.call("GET", "/v1/products?pageSize=1000")
    assert len(listed.body["products"]) == 300
    assert int(listed.headers["Content-Length"]) > 2 * MIB


async def test_deadlines(http: JsonClient, served: Served) -> None:
    short = await http.call("GET", "/v1/whoami", headers={"grpc-timeout": "1m"})
    assert (short.status, short.body["code"], short.reason) == (504, 4, "DEADLINE_TOO_SHORT")
    async with products_locked(served.suite):
        began = asyncio.get_running_loop().time()
        late = await http.call("GET", "/v1/products", headers={"grpc-timeout": "300m"})
        took = asyncio.get_running_loop().time() - began
    assert (late.status, late.reason) == (504, "DEADLINE_TOO_SHORT")
    assert 0.2 < took < 3


@asynccontextmanager
async def products_locked(suite: Suite) -> AsyncGenerator[None]:
    """Nobody reads or writes products while the block runs."""
    async with suite.admin() as admin, admin.transaction():
        await admin.execute("LOCK TABLE license.product IN ACCESS EXCLUSIVE MODE")
        yield


async def waiting(suite: Suite) -> int:
    """How many statements wait for the lock."""
    query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'license.product'::regclass"
    async with suite.admin() as admin:
        return await admin.fetchval(query)


async def test_a_caller_that_gives_up_is_noticed(http: JsonClient, served: Served) -> None:
    async def wait_for(number: int) -> None:
        async def is_so() -> bool:
            return await waiting(served.suite) == number

        await until(is_so, 10)

    async with products_locked(served.suite):
        call = asyncio.create_task(http.call("GET", "/v1/products", headers={"grpc-timeout": "30S"}))
        await wait_for(1)
        call.cancel()
        await wait_for(0)


async def test_many_calls_at_once(http: JsonClient, there: World) -> None:
    made = await policy(http)
    bodies = [{"policyId": made["policyId"], "displayName": f"{number}"} for number in range(40)]
    issued = await asyncio.gather(*(http.call("POST", "/v1/licenses", body) for body in bodies))
    assert len({answer.body["license"]["licenseId"] for answer in issued}) == 40
    mixed = await asyncio.gather(
        *(http.call("GET", "/v1/whoami") for _ in range(60)), *(there.test.whoami() for _ in range(60))
    )
    accounts = {one.body["accountId"] if isinstance(one, Answer) else one.account_id for one in mixed}
    assert accounts == {there.account_id}


async def test_sigterm_lets_a_call_in_flight_end(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    async with serving(postgres, tmp_path, "envoy", json_listen()) as running, running.suite.world() as world:
        async with json_client(running.listen.json, world.test_key) as http:
            async with products_locked(running.suite):
                call = asyncio.create_task(http.call("GET", "/v1/products", headers={"grpc-timeout": "30S"}))

                async def waits() -> bool:
                    return await waiting(running.suite) == 1

                await until(waits, 10)
                os.kill(running.process.pid, signal.SIGTERM)
                await until(lambda: "leaving" in running.log(), 10)

                async def closed() -> bool:
                    try:
                        _, writer = await asyncio.open_connection(running.listen.host, running.listen.json_port)
                    except OSError:
                        return True
                    writer.close()
                    return False

                await until(closed, 10)
            assert (await call).body == {"products": [], "nextPageToken": ""}
        assert await running.ended() == 0


async def test_over_mutual_tls(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    authority, callers = Authority(), Authority()
    cert_file, key_file = authority.server().write(tmp_path, "server")
    ca_file = callers.write(tmp_path / "callers.pem")
    files = {"tls_cert_file": str(cert_file), "tls_key_file": str(key_file), "tls_client_ca_file": str(ca_file)}
    anonymous = ssl.create_default_context(cadata=authority.certificate.decode())
    known = ssl.create_default_context(cadata=authority.certificate.decode())
    known.load_cert_chain(*callers.client(WORKLOAD).write(tmp_path, "caller"))
    async with serving(postgres, tmp_path, "envoy", json_listen(), **files) as running:
        base, own = f"https://{running.listen.json}/v1", {"authorization": f"Bearer {running.suite.operator_key}"}
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=known)) as session:
            named = {"displayName": "A", "requestId": str(uuid4())}
            async with session.post(f"{base}/accounts", json=named, headers=own) as made:
                assert made.status == 200, await made.text()
                account_id = (await made.json())["account"]["accountId"]
            binding = {
                "displayName": "W", "spiffeIdPattern": WORKLOAD, "accountId": account_id, "mode": "TEST",
                "scopes": ["licenses:read"],
            }  # fmt: skip
            async with session.post(f"{base}/workloadBindings", json=binding, headers=own) as bound:
                assert bound.status == 200, await bound.text()
            # Without a key the certificate says who calls; what the caller says of one does not.
            forged = {"x-forwarded-client-cert": "URI=spiffe://example.org/another"}
            async with session.get(f"{base}/whoami", headers=forged) as answer:
                assert (answer.status, (await answer.json())["accountId"]) == (200, account_id)
        for stranger, url in ((anonymous, base), (None, base.replace("https", "http"))):
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=stranger or True)) as session:
                with pytest.raises(aiohttp.ClientError):
                    await session.get(f"{url}/whoami", headers=own)


def settings_of(postgres: EmbeddedPostgres, served: Served, **more: str) -> dict[str, str]:
    """What a second process beside `served` needs."""
    return {
        "LICTOR_TARGET": "all",
        "LICTOR_TRANSPORT": "envoy",
        "LICTOR_LOG_FORMAT": "text",
        "LICTOR_POSTGRES_DSN": postgres.dsn(),
        "LICTOR_ROOT_SECRET_FILE": str(served.suite.settings.root_secret_file),
        "LICTOR_LICENSE_ADDR": served.listen.api,
        "LICTOR_LAME_DUCK_S": "0",
        **more,
    }


@pytest.mark.parametrize("target", ["license", "machine"])
async def test_a_target_answers_for_its_own_services_only(
    postgres: EmbeddedPostgres, served: Served, there: World, tmp_path: Path, target: str
) -> None:
    listen = json_listen()
    process = launch(tmp_path, listen, settings_of(postgres, served, LICTOR_TARGET=target))
    try:
        assert await settled(process, listen), process.log.read_text()
        async with json_client(listen.json, there.test_key) as http:
            foreign = await http.call("GET", "/v1/machines")
            if target == "machine":
                assert foreign.body["machines"] == []
            else:
                assert_refusal(foreign, 404, "", "GET")
            seen = await http.call("GET", "/v1/whoami")
            if target == "license":
                assert seen.body["accountId"] == there.account_id
            else:
                assert_refusal(seen, 404, "", "GET")
    finally:
        await asyncio.to_thread(process.stop)


async def test_what_a_target_maps_is_what_it_serves(suite: Suite) -> None:
    async with license_app.build(suite.settings, SystemClock()) as app:
        served = {binding.descriptor.full_name for binding in app.bindings}
    internal = {rpc.name.rpartition(".")[0] for rpc in rpcs() if rpc.internal}
    assert set(mapped_services(PACKAGES[Target.LICENSE])) == served - internal
    everything = {rpc.name.rpartition(".")[0] for rpc in rpcs()} - internal
    assert set(mapped_services(PACKAGES[Target.ALL])) == everything
    of_one = [name for target in Target if target is not Target.ALL for name in mapped_services(PACKAGES[target])]
    assert sorted(of_one) == sorted(everything)


async def test_a_start_that_fails_says_why(postgres: EmbeddedPostgres, served: Served, tmp_path: Path) -> None:
    cases = [
        ({"LICTOR_JSON_ADDR": served.listen.json}, f"{served.listen.json}: Address already in use"),
        ({"LICTOR_TRANSPORT": "grpcio"}, "LICTOR_JSON_ADDR is set, but LICTOR_TRANSPORT is grpcio"),
    ]
    for more, words in cases:
        listen = json_listen()
        process = launch(tmp_path, listen, settings_of(postgres, served, **more))
        try:
            assert await ended(process) == 1
            assert words in process.log.read_text().splitlines()[-1], process.log.read_text()
        finally:
            await asyncio.to_thread(process.stop)


async def test_license_keys_and_sessions_are_credentials_here_too(http: JsonClient, there: World) -> None:
    product = (await there.test.products.create(code="PORTAL", display_name="P")).product
    policy = await there.test.policies.create(product_id=product.product_id, display_name="P", template="saas")
    issued = await there.test.licenses.create(policy_id=policy.policy.policy_id, customer_email="ada@example.com")
    key = (await there.test.api_keys.create(kind="PUBLISHABLE", scopes=["licenses:validate"])).secret
    shipped = {"authorization": f"License {key}:{issued.key}"}
    answer = await http.call("POST", "/v1/licenses:validate", {}, headers=shipped)
    assert (answer.status, answer.body["code"], answer.body["licenseId"]) == (200, "VALID", issued.license.license_id)
    assert (await http.call("GET", "/v1/licenses", headers=shipped)).status == 403
    customer_id = issued.license.customer_id
    made = await http.call("POST", f"/v1/customers/{customer_id}:createSession", {"ttl": "60s"})
    customer = http.with_key(made.body["token"])
    listed = await customer.call("GET", "/v1/licenses")
    assert [found["licenseId"] for found in listed.body["licenses"]] == [issued.license.license_id]
    ended = await http.call("POST", f"/v1/customers/{customer_id}:revokeSessions", {})
    assert (ended.status, ended.body["endedCount"]) == (200, 1)
    assert (await customer.call("GET", "/v1/licenses")).status == 401
