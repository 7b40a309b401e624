"""`lictor fingerprint` shows what the client makes, and ends with status 1 where there is nothing to make it of."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import lictor
import pytest

NODE = {"LICTOR_NODE_UID": "b1e0c3d2-77aa-4c55-9e21-6f0d4a8c2b13"}


def run(*arguments: str, given: dict[str, str]) -> subprocess.CompletedProcess[str]:
    named = {"LICTOR_MACHINE_ID_FILE", "LICTOR_NODE_UID", "LICTOR_POD_UID"}
    environment = {name: value for name, value in os.environ.items() if name not in named} | given
    command = [sys.executable, "-m", "services.cli", "fingerprint", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)


def test_it_shows_what_the_client_makes_and_of_what(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LICTOR_MACHINE_ID_FILE", "LICTOR_POD_UID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LICTOR_NODE_UID", NODE["LICTOR_NODE_UID"])
    made = lictor.fingerprint(product="PROAPP")
    done = run("--product", "PROAPP", given=NODE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == made.text
    assert made.components["node_uid"] in done.stdout
    assert "LICTOR_NODE_UID: a component; the text is made of it" in done.stdout
    assert NODE["LICTOR_NODE_UID"] not in done.stdout
    said = json.loads(run("--product", "PROAPP", "--json", given=NODE).stdout)
    assert (said["text"], said["components"]) == (made.text, made.components)
    assert [use["name"] for use in said["used"]] == [use.name for use in made.used]


def test_it_says_why_there_is_none_and_what_to_do() -> None:
    both = {**NODE, "LICTOR_POD_UID": "3f6a2c1e-8d4b-4f70-9a51-b0c7d2e4f689"}
    done = run(given=both)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "lictor: no fingerprint, IDENTITY_AMBIGUOUS: LICTOR_NODE_UID and LICTOR_POD_UID are set"
    )
    done = run("--json", given=both)
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout)["refusal"]["remedy"] == "Set one of them"
