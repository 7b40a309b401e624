"""`lictor file verify`, as it is called."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from lictor._core.offline_format import FileKind, FileSecret, fingerprint_mark, moment
from typer.testing import CliRunner, Result

from services.cli import app
from tests.helpers.offline import FINGERPRINT, KEYS, LICENSE_KEY, payload, written

Run = Callable[..., Result]
NOW = datetime.now(UTC)
TIMES: dict[str, Any] = {
    "server_time": moment(NOW - timedelta(hours=1)), "not_before": moment(NOW - timedelta(hours=1)),
    "expires_at": moment(NOW + timedelta(days=1)),
}  # fmt: skip


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> Run:
    (tmp_path / "jwks.json").write_text(KEYS)
    (tmp_path / "key").write_text(LICENSE_KEY + "\n")

    def run(text: str, *more: str) -> Result:
        (tmp_path / "app.lic").write_text(text)
        arguments = ["file", "verify", str(tmp_path / "app.lic"), "--keys", str(tmp_path / "jwks.json"), *more]
        return CliRunner().invoke(app, [part.replace("{}", str(tmp_path)) for part in arguments])

    return run


def test_a_good_file_is_shown(run: Run) -> None:
    done = run(written(payload(**TIMES)))
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == payload(**TIMES)


def test_a_machine_file_and_an_encrypted_one(run: Run) -> None:
    said = payload(FileKind.MACHINE, **TIMES, fingerprint=fingerprint_mark(FINGERPRINT))
    text = written(said, FileKind.MACHINE, FileSecret(LICENSE_KEY, FINGERPRINT))
    done = run(text, "--fingerprint", FINGERPRINT, "--license-key-file", "{}/key")
    assert (done.exit_code, json.loads(done.stdout)) == (0, said)
    assert run(text, "--fingerprint", FINGERPRINT).exit_code == 1
    assert "NOT_DECRYPTED" in run(text, "--license-key-file", "{}/key").stderr


def test_a_refusal_names_its_reason(run: Run) -> None:
    done = run(written())  # of 2030
    assert done.exit_code == 1
    assert done.stderr.startswith("lictor: CLOCK_SET_BACK: ")
    assert done.stdout == ""
    assert run(written(payload(**TIMES)), "--state", "{}/state").exit_code == 0
    older = run(written(payload(**TIMES, seq=6)), "--state", "{}/state")
    assert "ROLLED_BACK" in older.stderr


def test_files_that_are_not_there_are_another_matter(run: Run) -> None:
    done = run(written(payload(**TIMES)), "--license-key-file", "{}/nowhere")
    assert (done.exit_code, done.stdout) == (2, "")
