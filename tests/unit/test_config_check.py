"""`lictor config check` names all that is wrong with settings at once, and shows no secret."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from services.config_check import check
from services.doctor import clock
from shared.crypto.private_files import generate_line


@pytest.fixture(autouse=True)
def _good(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("LICTOR_")]:
        monkeypatch.delenv(name)
    for name in ("root", "kek"):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text(generate_line())
    monkeypatch.setenv("LICTOR_TARGET", "license")
    monkeypatch.setenv("LICTOR_TRANSPORT", "grpcio")
    monkeypatch.setenv("LICTOR_POSTGRES_DSN", "postgresql:///lictor")
    monkeypatch.setenv("LICTOR_ROOT_SECRET_FILE", str(tmp_path / "root"))
    monkeypatch.setenv("LICTOR_KEK_FILE", str(tmp_path / "kek"))


def test_good_settings_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert check() == 0
    shown = capsys.readouterr().out
    assert "LICTOR_TRANSPORT=grpcio\n" in shown
    assert "LICTOR_POOL_SIZE=8  (default)\n" in shown
    assert "0 to know of, 0 to fix" in shown


def test_everything_bad_is_named_at_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LICTOR_POOL_SISE", "3")
    monkeypatch.setenv("LICTOR_POOL_SIZE", "many")
    monkeypatch.setenv("LICTOR_TARGET", "licence")
    monkeypatch.delenv("LICTOR_POSTGRES_DSN")
    assert check() == 1
    shown = capsys.readouterr().out
    assert "FAIL  LICTOR_POOL_SISE: nothing reads it\n      fix: did you mean LICTOR_POOL_SIZE?" in shown
    for line in ("FAIL  LICTOR_POOL_SIZE: bad", "FAIL  LICTOR_TARGET: bad", "FAIL  LICTOR_POSTGRES_DSN: not set"):
        assert line in shown


CONTRADICTIONS = {
    "a port twice": ({"LICTOR_OPS_ADDR": "127.0.0.1:7420"}, "FAIL  LICTOR_OPS_ADDR: 127.0.0.1:7420 is also LICTOR_API_ADDR", 1),
    "no address": ({"LICTOR_API_ADDR": "7420"}, "FAIL  LICTOR_API_ADDR: not a host:port address", 1),
    "no port": ({"LICTOR_API_ADDR": "127.0.0.1:70000"}, "FAIL  LICTOR_API_ADDR: there is no port 70000", 1),
    "JSON by grpcio": ({"LICTOR_JSON_ADDR": "127.0.0.1:7423"}, "FAIL  LICTOR_JSON_ADDR: set, but LICTOR_TRANSPORT is grpcio", 1),
    "proxies by grpcio": ({"LICTOR_TRUSTED_PROXIES": "1"}, "FAIL  LICTOR_TRUSTED_PROXIES: set, but", 1),
    "half of TLS": ({"LICTOR_TLS_CERT_FILE": "/nowhere"}, "FAIL  TLS: refused", 1),
    "open without TLS": ({"LICTOR_API_ADDR": "0.0.0.0:7420"}, "warn  TLS: none, and others may reach 0.0.0.0:7420", 0),
    "no root secret": ({"LICTOR_ROOT_SECRET_FILE": "/nowhere"}, "FAIL  root secret: refused", 1),
    "no KEK": ({"LICTOR_KEK_FILE": "/nowhere"}, "FAIL  KEK: refused", 1),
    "no passwords": ({"LICTOR_POSTGRES_PASSWORD_FILE": "/nowhere"}, "FAIL  passwords: refused", 1),
    "no Redis": ({"LICTOR_REDIS_URL": "http://cache:6379"}, "FAIL  LICTOR_REDIS_URL: bad", 1),
    "half of a Redis": ({"LICTOR_REDIS_URL": "redis://cache:port"}, "FAIL  LICTOR_REDIS_URL: refused", 1),
    "an unknown option": ({"LICTOR_REDIS_URL": "redis://cache?tls=on"}, "FAIL  LICTOR_REDIS_URL: refused", 1),
    "no Redis password": (
        {"LICTOR_REDIS_URL": "redis://cache", "LICTOR_REDIS_PASSWORD_FILE": "/nowhere"},
        "FAIL  LICTOR_REDIS_PASSWORD_FILE: refused", 1,
    ),
    "no authorities of who signs": (
        {"LICTOR_TARGET": "machine", "LICTOR_LICENSE_ADDR": "license:7420", "LICTOR_LICENSE_CA_FILE": "/nowhere"},
        "FAIL  LICTOR_LICENSE_CA_FILE: refused", 1,
    ),
    "an admin": ({"LICTOR_POSTGRES_ADMIN_DSN": "postgresql:///x"}, "warn  LICTOR_POSTGRES_ADMIN_DSN: set", 0),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradictions(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    settings, words, status = CONTRADICTIONS[name]
    for variable, value in settings.items():
        monkeypatch.setenv(variable, value)
    assert check() == status
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://lictor:hunter2@db/lictor",
        "postgresql:///lictor?host=db&password=hunter2&sslmode=require",
        "postgresql://u:p@hunter2@db/x",
    ],
)
def test_no_password_is_shown(dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LICTOR_POSTGRES_DSN", dsn)
    assert check() == 0
    shown = capsys.readouterr().out
    assert ("hunter2" in shown, "warn  LICTOR_POSTGRES_DSN: holds a password" in shown) == (False, True), shown


@pytest.mark.parametrize(
    "url", ["redis://lictor:hunter2@cache:6379/1", "rediss://:hunter2@cache", "unix://u:hunter2@/run/x"]
)
def test_no_password_of_redis_is_shown(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LICTOR_REDIS_URL", url)
    assert check() == 0
    shown = capsys.readouterr().out
    assert ("hunter2" in shown, url.replace("hunter2", "***") in shown) == (False, True), shown


def test_a_password_of_redis_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "redis-password"
    monkeypatch.setenv("LICTOR_REDIS_URL", "rediss://lictor@cache:6380")
    monkeypatch.setenv("LICTOR_REDIS_PASSWORD_FILE", str(path))
    for content, mode, status, words in (
        ("hunter2\n", 0o600, 0, "  ok  LICTOR_REDIS_PASSWORD_FILE: one line"),
        ("hunter2\n", 0o644, 0, "warn  LICTOR_REDIS_PASSWORD_FILE"),
        ("hunter2\nhunter2\n", 0o600, 1, "FAIL  LICTOR_REDIS_PASSWORD_FILE: refused"),
        ("", 0o600, 1, "FAIL  LICTOR_REDIS_PASSWORD_FILE: refused"),
    ):
        path.write_text(content)
        path.chmod(mode)
        assert check() == status
        shown = capsys.readouterr().out
        assert (words in shown, "hunter2" in shown) == (True, False), shown


def test_programs_get_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LICTOR_KEK_FILE", "/nowhere")
    assert check(as_json=True) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], [f["subject"] for f in said["findings"] if f["level"] == "fail"]) == (False, ["KEK"])


@pytest.mark.parametrize(
    ("offset_s", "uncertain_s", "level"),
    [(0.2, 0.0, "ok"), (-0.9, 0.0, "ok"), (1.2, 0.5, "ok"), (1.6, 0.5, "warn"),
     (-4.0, 0.0, "warn"), (-5.1, 0.0, "fail"), (60, 1, "fail")],
)  # fmt: skip
def test_clocks_apart(offset_s: float, uncertain_s: float, level: str) -> None:
    found = clock(offset_s, uncertain_s)
    assert (found.level, bool(found.fix)) == (level, level != "ok")
    if level != "ok":
        assert ("behind" if offset_s > 0 else "ahead of") in found.seen
