"""What Envoy is told of TLS, where no running Envoy shows it."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path

import pytest

from shared.rpc.envoy import tls
from shared.rpc.envoy.listener import listener
from shared.rpc.envoy.tls import EnvoyTls, renewing
from shared.rpc.tls import TlsError, TlsFiles
from tests.helpers.certificates import Authority


def test_a_listener_offers_what_its_codec_speaks(tmp_path: Path) -> None:
    told = EnvoyTls(tmp_path, TlsFiles(Path("cert"), Path("key")))
    for codec, protocols in (("HTTP2", ["h2"]), ("AUTO", ["h2", "http/1.1"])):
        made = listener("api", "127.0.0.1:0", [], codec=codec, trusted_proxies=0, share_port=False, tls=told)
        [chain] = made["filter_chains"]
        assert chain["transport_socket"]["typed_config"]["common_tls_context"]["alpn_protocols"] == protocols
    [chain] = listener("api", "127.0.0.1:0", [], codec="AUTO", trusted_proxies=0, share_port=False)["filter_chains"]
    assert "transport_socket" not in chain


def test_the_key_is_named_and_not_copied(tmp_path: Path) -> None:
    authority = Authority()
    pair = authority.server()
    (tmp_path / "envoy").mkdir()
    files = TlsFiles(*pair.write(tmp_path, "server"), authority.write(tmp_path / "ca.pem"))
    EnvoyTls(tmp_path / "envoy", files).write()
    written = [path for path in (tmp_path / "envoy").iterdir() if path.is_file()]
    assert len(written) == 2
    for path in written:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "PRIVATE KEY" not in path.read_text()
        assert all(str(tmp_path) in json.dumps(resource) for resource in json.loads(path.read_text())["resources"])


async def test_a_word_that_cannot_be_said_yet_is_said_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tls, "LOOK_S", 0.01)
    authority, folder = Authority(), tmp_path / "envoy"
    files = TlsFiles(*authority.server().write(tmp_path, "server"))
    folder.mkdir()
    async with asyncio.timeout(10), renewing(folder, files):
        authority.server().write(tmp_path, "server")
        said = ""
        while "Envoy cannot be told of its new TLS files yet" not in said:
            await asyncio.sleep(0.01)
            said += "".join(capsys.readouterr())
        EnvoyTls(folder, files).write()
        while not (folder / "renewed" / "last").exists():  # noqa: ASYNC110 - nor has a folder
            await asyncio.sleep(0.01)
        said += "".join(capsys.readouterr())
    assert said.count("Envoy cannot be told") == 1


async def test_files_that_cannot_be_used_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(TlsError):
        async with renewing(tmp_path, TlsFiles(tmp_path / "no", tmp_path / "nothing")):
            pytest.fail("it began")
