"""`lictor doctor` finds what is wrong with a deployment and names the fix."""

from __future__ import annotations

import asyncio
import json
import socket
from datetime import timedelta
from pathlib import Path

import pytest

from services.doctor import doctor
from shared.embedded.valkey import EmbeddedValkey
from tests.helpers.certificates import Authority
from tests.helpers.embedded import kill, state_directory
from tests.helpers.redis_tier import looking
from tests.helpers.suite import Suite, World


@pytest.fixture(name="deployment", autouse=True)
def _deployment(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LICTOR_TARGET", "all")
    monkeypatch.setenv("LICTOR_TRANSPORT", "grpcio")
    monkeypatch.setenv("LICTOR_POSTGRES_DSN", suite.settings.postgres_dsn.get_secret_value())
    monkeypatch.setenv("LICTOR_ROOT_SECRET_FILE", str(suite.settings.root_secret_file))
    for name in ("API", "OPS", "OPS_GRPC"):
        monkeypatch.setenv(f"LICTOR_{name}_ADDR", "127.0.0.1:0")


async def test_a_good_deployment_needs_no_fix(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status = await asyncio.to_thread(doctor, tmp_path)
    shown = capsys.readouterr().out
    assert (status, "0 to fix" in shown) == (0, True), shown
    for role in ("lictor_license", "lictor_entitlement", "lictor_machine", "lictor_webhook", "lictor_facts"):
        assert f"ok  role {role}: connects" in shown
    for words in (
        "ok  Postgres: version 1",
        "ok  schema: at version ",
        "ok  clock: within 0.",
        "ok  Redis: off",
    ):
        assert words in shown


async def test_the_certificate_is_looked_at(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = Authority()
    for lasts, status, words in (
        (timedelta(days=40, minutes=5), 0, "  ok  TLS: the certificate has 40 days and 0 hours left"),
        (timedelta(days=3, minutes=5), 0, "warn  TLS: the certificate has 3 days and 0 hours left"),
        (timedelta(days=-2), 1, "FAIL  TLS: the certificate ended 2 days ago"),
    ):
        cert_file, key_file = authority.server(lasts=lasts).write(tmp_path, "server")
        monkeypatch.setenv("LICTOR_TLS_CERT_FILE", str(cert_file))
        monkeypatch.setenv("LICTOR_TLS_KEY_FILE", str(key_file))
        assert await asyncio.to_thread(doctor, tmp_path) == status
        assert words in capsys.readouterr().out
    authority.server().write(tmp_path, "other")
    monkeypatch.setenv("LICTOR_TLS_KEY_FILE", str(tmp_path / "other.key"))
    assert await asyncio.to_thread(doctor, tmp_path) == 1
    shown = capsys.readouterr().out
    assert "LICTOR_TLS_KEY_FILE: " in shown
    assert "is not the key of the certificate" in shown


async def test_an_address_that_somebody_else_has_is_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        monkeypatch.setenv("LICTOR_API_ADDR", address)
        assert await asyncio.to_thread(doctor, tmp_path) == 1
        assert f"FAIL  LICTOR_API_ADDR: {address}: " in capsys.readouterr().out
    assert await asyncio.to_thread(doctor, tmp_path) == 0
    assert f"ok  LICTOR_API_ADDR: {address} is free" in capsys.readouterr().out


async def test_addresses_that_are_this_deployments_own_are_well(
    suite: Suite, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LICTOR_API_ADDR", suite.bound.api_addr)
    monkeypatch.setenv("LICTOR_OPS_ADDR", suite.bound.ops_addr)
    assert await asyncio.to_thread(doctor, tmp_path) == 0
    assert f"{suite.bound.api_addr} is taken, and a Lictor answers" in capsys.readouterr().out


async def test_sealed_products_without_a_kek_are_found(
    suite: Suite, world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await world.test.products.create(code="SEALED", display_name="Sealed")
    assert await asyncio.to_thread(doctor, tmp_path) == 0
    assert "and no KEK: no license of theirs is issued" in capsys.readouterr().out
    monkeypatch.setenv("LICTOR_KEK_FILE", str(suite.settings.kek_file))
    assert await asyncio.to_thread(doctor, tmp_path, as_json=True) == 0
    said = {found["subject"]: found for found in json.loads(capsys.readouterr().out)["findings"]}
    assert said["sealed products"]["level"] == "ok"


async def test_an_open_root_secret_is_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    open_file = tmp_path / "root"
    open_file.write_text("1 " + "ab" * 32 + "\n")
    open_file.chmod(0o644)
    monkeypatch.setenv("LICTOR_ROOT_SECRET_FILE", str(open_file))
    status = await asyncio.to_thread(doctor, tmp_path)
    shown = capsys.readouterr().out
    assert (status, "chmod 600 it" in shown, "abab" in shown) == (1, True, False), shown


async def test_the_kek_is_looked_at(
    suite: Suite, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert await asyncio.to_thread(doctor, tmp_path) == 0
    assert "  ok  KEK: none: products that keep their license keys are refused" in capsys.readouterr().out
    monkeypatch.setenv("LICTOR_KEK_FILE", str(suite.settings.kek_file))
    assert await asyncio.to_thread(doctor, tmp_path) == 0
    assert "  ok  KEK: versions (1,)" in capsys.readouterr().out
    bad = tmp_path / "kek"
    bad.write_text("1 " + "ab" * 31 + "\n")
    bad.chmod(0o600)
    monkeypatch.setenv("LICTOR_KEK_FILE", str(bad))
    assert await asyncio.to_thread(doctor, tmp_path) == 1
    shown = capsys.readouterr().out
    assert ("exactly 32 bytes" in shown, "abab" in shown) == (True, False), shown
    monkeypatch.setenv("LICTOR_TARGET", "machine")
    monkeypatch.setenv("LICTOR_LICENSE_ADDR", "127.0.0.1:7420")
    assert await asyncio.to_thread(doctor, tmp_path) == 0
    assert "KEK" not in capsys.readouterr().out


async def test_redis_is_tried_and_keeps_nobody_from_serving(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    password_file = tmp_path / "redis-password"
    password_file.touch(0o600)
    password_file.write_text("s3cret\n")
    with state_directory() as state, EmbeddedValkey(state) as valkey:
        monkeypatch.setenv("LICTOR_REDIS_URL", valkey.dsn())
        assert await asyncio.to_thread(doctor, tmp_path) == 0
        assert "  ok  Redis: keeps facts, and answers in " in capsys.readouterr().out
        with looking(valkey) as client:
            client.config_set("requirepass", "s3cret")
        assert await asyncio.to_thread(doctor, tmp_path) == 0
        assert "warn  Redis: does not answer, or does not keep what is put there" in capsys.readouterr().out
        monkeypatch.setenv("LICTOR_REDIS_PASSWORD_FILE", str(password_file))
        assert await asyncio.to_thread(doctor, tmp_path) == 0
        shown = capsys.readouterr().out
        assert "  ok  Redis: keeps facts, and answers in " in shown
        kill(valkey)
        assert await asyncio.to_thread(doctor, tmp_path) == 0
        shown += capsys.readouterr().out
        assert "warn  Redis: does not answer" in shown
        assert "s3cret" not in shown
    monkeypatch.setenv("LICTOR_TARGET", "machine")
    monkeypatch.setenv("LICTOR_LICENSE_ADDR", "127.0.0.1:7420")
    assert await asyncio.to_thread(doctor, tmp_path) == 0
    assert "Redis" not in capsys.readouterr().out


async def test_a_superuser_in_the_dsn_cannot_hide_the_roles(
    suite: Suite, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LICTOR_POSTGRES_DSN", suite.admin_dsn)
    assert await asyncio.to_thread(doctor, tmp_path) == 0, capsys.readouterr().out


async def test_a_postgres_that_is_away_is_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LICTOR_POSTGRES_DSN", f"postgresql:///lictor?host={tmp_path}")
    assert await asyncio.to_thread(doctor, tmp_path) == 1
    assert "check LICTOR_POSTGRES_DSN and that Postgres answers there" in capsys.readouterr().out
