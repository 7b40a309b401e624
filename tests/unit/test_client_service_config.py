"""protos/service_config.json covers the contract: every service, every hot method, and only UNAVAILABLE retries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NotRequired, TypedDict

from services.call import methods

FILE = Path(__file__).resolve().parents[2] / "protos" / "service_config.json"


class Name(TypedDict):
    service: str
    method: NotRequired[str]


class RetryPolicy(TypedDict):
    maxAttempts: int
    retryableStatusCodes: list[str]


class MethodConfig(TypedDict):
    name: list[Name]
    timeout: str
    retryPolicy: RetryPolicy


def _configs() -> list[MethodConfig]:
    return json.loads(FILE.read_text())["methodConfig"]


def _named(timeout: str) -> set[str]:
    entries = [name for config in _configs() if config["timeout"] == timeout for name in config["name"]]
    return {"/".join(part for part in (entry["service"], entry.get("method")) if part) for entry in entries}


def test_every_service_has_ten_seconds() -> None:
    assert _named("10s") == {path.split("/")[1] for path in methods()}


def test_every_hot_method_has_one_second() -> None:
    assert _named("1s") == {path.strip("/") for path, method in methods().items() if method.hot}


def test_only_unavailable_is_retried_three_times_in_all() -> None:
    assert {config["timeout"] for config in _configs()} == {"1s", "10s"}
    for config in _configs():
        assert config["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
        assert config["retryPolicy"]["maxAttempts"] == 3
