"""The client and `lictor call` over TLS, with a client certificate in place of an API key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from lictor import AsyncLictor, Lictor, TlsConfig, Unavailable
from lictor.account.v1.account_service_pb2 import WhoAmIResponse
from typer.testing import CliRunner

from services.cli import app
from services.up import API_KEY, known_api_key
from tests.helpers.certificates import Authority
from tests.service.test_client_outside import Outside, running_outside

SPIFFE_ID = "spiffe://prod.acme/ns/billing/api"


@dataclass(frozen=True)
class Files:
    """An authority's certificate, and one that it has signed for the client."""

    ca: Path
    cert: Path
    key: Path

    @property
    def tls(self) -> TlsConfig:
        return TlsConfig(ca_file=self.ca, cert_file=self.cert, key_file=self.key)


@pytest_asyncio.fixture(name="secured")
async def _secured(tmp_path: Path) -> AsyncGenerator[tuple[Outside, Files]]:
    """A server that wants a certificate, and the files to call it with."""
    authority = Authority()
    server = authority.server()
    files = Files(authority.write(tmp_path / "ca.pem"), *authority.client(SPIFFE_ID).write(tmp_path, "client"))
    shown = [(server.key, server.certificate)]
    credentials = grpc.ssl_server_credentials(shown, authority.certificate, require_client_auth=True)
    async with running_outside(credentials) as outside:
        outside.answers["WhoAmI"] = lambda _: WhoAmIResponse(account_id="acc_1")
        yield outside, files


def assert_shown(outside: Outside, *, authorization: str | None = None) -> None:
    """The last call came with the certificate, and with the key where there was one."""
    seen = outside.seen.pop()
    assert seen.identities == (SPIFFE_ID,)
    assert seen.metadata.get("authorization") == authorization


async def test_the_async_client_shows_its_certificate_and_no_key(secured: tuple[Outside, Files]) -> None:
    outside, files = secured
    async with AsyncLictor(endpoint=outside.endpoint, tls=files.tls) as client:
        assert (await client.whoami()).account_id == "acc_1"
    assert_shown(outside)


async def test_the_blocking_client_shows_its_certificate_and_no_key(secured: tuple[Outside, Files]) -> None:
    outside, files = secured

    def ask() -> str:
        with Lictor(endpoint=outside.endpoint, tls=files.tls) as client:
            return client.whoami().account_id

    assert await asyncio.to_thread(ask) == "acc_1"
    assert_shown(outside)


async def test_a_key_goes_along_where_there_is_one(secured: tuple[Outside, Files]) -> None:
    outside, files = secured
    async with AsyncLictor(api_key="sk_test_x", endpoint=outside.endpoint, tls=files.tls) as client:
        await client.whoami()
    assert_shown(outside, authorization="Bearer sk_test_x")


async def test_a_server_of_another_authority_is_not_spoken_to(secured: tuple[Outside, Files], tmp_path: Path) -> None:
    outside, files = secured
    other = Authority().write(tmp_path / "other.pem")  # by name only the same
    tls = TlsConfig(ca_file=other, cert_file=files.cert, key_file=files.key)
    async with AsyncLictor(endpoint=outside.endpoint, tls=tls) as client:
        with pytest.raises(Unavailable):
            await client.whoami()
    assert outside.seen == []


@pytest.fixture(name="state")
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory that keeps a key."""
    for name in ("LICTOR_API_KEY", "LICTOR_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "state"
    folder.mkdir(0o700)
    (folder / API_KEY).write_text("sk_test_kept")
    assert known_api_key(folder) == "sk_test_kept"
    return folder


async def lictor(*arguments: str | Path, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Runs the command line; its exit status and all that it printed."""
    done = await asyncio.to_thread(CliRunner().invoke, app, [str(argument) for argument in arguments], env=env)
    return done.exit_code, done.output


async def test_lictor_call_shows_a_certificate_in_place_of_the_kept_key(
    secured: tuple[Outside, Files], state: Path
) -> None:
    outside, files = secured
    common = ("call", "WhoAmI", "--endpoint", outside.endpoint, "--state-dir", state)
    options = ("--ca-file", files.ca, "--cert-file", files.cert, "--key-file", files.key)
    code, output = await lictor(*common, *options)
    assert (code, '"accountId": "acc_1"' in output) == (0, True), output
    assert_shown(outside)
    environment = {
        "LICTOR_TLS_CA_FILE": str(files.ca),
        "LICTOR_CLIENT_CERT_FILE": str(files.cert),
        "LICTOR_CLIENT_KEY_FILE": str(files.key),
    }
    assert (await lictor(*common, env=environment))[0] == 0
    assert_shown(outside)
    assert (await lictor(*common, "--api-key", "sk_test_said", env=environment))[0] == 0
    assert_shown(outside, authorization="Bearer sk_test_said")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--cert-file", "me.pem"), "both cert_file and key_file"),
        (("--ca-file", "nowhere.pem"), "nowhere.pem"),
    ],
)
async def test_lictor_call_says_what_is_wrong_with_its_files(state: Path, options: tuple[str, ...], words: str) -> None:
    code, output = await lictor("call", "WhoAmI", "--endpoint", "127.0.0.1:1", "--state-dir", state, *options)
    assert (code, words in output) == (1, True), output
