"""A process with wrong settings does not start, and says which variables are wrong without their values."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from services.license.settings import Settings as LicenseSettings
from services.main import read_settings, read_target, refuse_json
from shared.settings import SettingsError, Target


@pytest.fixture(autouse=True)
def _good(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LICTOR_TARGET", "license")
    monkeypatch.setenv("LICTOR_TRANSPORT", "grpcio")
    monkeypatch.setenv("LICTOR_POSTGRES_DSN", "postgresql:///lictor")
    monkeypatch.setenv("LICTOR_ROOT_SECRET_FILE", str(tmp_path / "root"))
    monkeypatch.setenv("LICTOR_LICENSE_ADDR", "127.0.0.1:7420")


@pytest.mark.parametrize("target", Target)
def test_good_settings_are_read_for_every_target(target: Target) -> None:
    assert read_settings(target).postgres_dsn.get_secret_value() == "postgresql:///lictor"


def test_every_bad_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LICTOR_POOL_SIZE", "many")
    monkeypatch.setenv("LICTOR_TRANSPORT", "carrier-pigeon")
    monkeypatch.delenv("LICTOR_ROOT_SECRET_FILE")
    with pytest.raises(SettingsError) as refused:
        read_settings(Target.LICENSE)
    for name in ("LICTOR_POOL_SIZE", "LICTOR_TRANSPORT", "LICTOR_ROOT_SECRET_FILE"):
        assert name in str(refused.value)


def test_the_transport_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LICTOR_TRANSPORT")
    with pytest.raises(SettingsError, match="LICTOR_TRANSPORT"):
        read_settings(Target.LICENSE)


def test_a_misspelled_variable_does_not_pass_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LICTOR_POOL_SISE", "3")
    with pytest.raises(SettingsError, match="unknown settings: LICTOR_POOL_SISE"):
        read_settings(Target.LICENSE)


def test_a_machine_process_is_told_who_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LICTOR_LICENSE_ADDR", "license")
    with pytest.raises(SettingsError, match=r"LICTOR_LICENSE_ADDR: .*not a host:port address"):
        read_settings(Target.MACHINE)
    monkeypatch.delenv("LICTOR_LICENSE_ADDR")
    with pytest.raises(SettingsError, match="LICTOR_LICENSE_ADDR"):
        read_settings(Target.MACHINE)
    assert read_settings(Target.ALL), "which serves those methods itself"


def test_an_unknown_target_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LICTOR_TARGET", "licence")
    with pytest.raises(SettingsError, match=r"'licence'.*license, entitlement, machine, webhook, all"):
        read_target()


def test_a_bad_dsn_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LICTOR_POSTGRES_DSN", "postgresql://user:hunter2@db/lictor")
    assert "hunter2" not in repr(read_settings(Target.LICENSE))


@pytest.mark.parametrize("url", ["redis://cache", "rediss://u:p@cache:6380/2", "unix:///run/valkey.sock?db=1"])
def test_an_address_of_a_redis(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LICTOR_REDIS_URL", url)
    settings = read_settings(Target.LICENSE)
    assert isinstance(settings, LicenseSettings)
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == url
    assert url not in repr(settings)


@pytest.mark.parametrize("url", ["", None])
def test_without_an_address_there_is_no_redis(url: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if url is not None:
        monkeypatch.setenv("LICTOR_REDIS_URL", url)
    settings = read_settings(Target.LICENSE)
    assert isinstance(settings, LicenseSettings)
    assert settings.redis_url is None


def test_what_is_no_address_of_a_redis_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LICTOR_REDIS_URL", "http://:hunter2@cache")
    with pytest.raises(SettingsError, match=r"LICTOR_REDIS_URL: .*redis://, rediss://, unix://") as refused:
        read_settings(Target.LICENSE)
    assert "hunter2" not in str(refused.value)


def test_json_needs_the_transport_envoy(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_json(read_settings(Target.LICENSE))
    monkeypatch.setenv("LICTOR_JSON_ADDR", "127.0.0.1:7423")
    with pytest.raises(SettingsError, match="LICTOR_JSON_ADDR is set, but LICTOR_TRANSPORT is grpcio"):
        refuse_json(read_settings(Target.LICENSE))
    monkeypatch.setenv("LICTOR_TRANSPORT", "auto")
    monkeypatch.setitem(sys.modules, "pyvoy", None)
    with pytest.raises(SettingsError, match=r"LICTOR_TRANSPORT is auto and takes grpcio here \(.*pyvoy"):
        refuse_json(read_settings(Target.LICENSE))
