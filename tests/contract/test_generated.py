"""What is made from other files is as fresh as they are, and the tree keeps its own rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import lockfiles, protos, sizes


def test_stubs_are_fresh_and_the_contract_is_lint_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # In a folder of its own: `make check` may run at the same time. Breaking changes are its business.
    monkeypatch.setattr(protos, "ROOT", tmp_path)
    monkeypatch.setattr(protos, "WORKSPACE", tmp_path / "protos")
    status = protos.check()
    assert status == 0, capsys.readouterr().out


def test_lock_files_are_pins_with_hashes_and_without_addresses() -> None:
    files = sorted(lockfiles.REQUIREMENTS.glob("*.txt"))
    assert [path.stem for path in files] == ["build", "dev", "embedded", "envoy", "run"]
    assert [fault for path in files for fault in lockfiles.faults(path.name, path.read_text())] == []


def test_no_module_has_grown_beyond_the_limit() -> None:
    assert {str(path): lines for path, lines in sizes.sizes().items() if lines > sizes.FAIL} == {}
