"""The files of migrations: what is a good set of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.db.migrate import FOLDER, MigrationError, load_migrations

GOOD = "-- min_compatible: 1\nSELECT 1;\n"


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name.removeprefix('m')}.sql").write_text(text)


def test_our_own_are_good() -> None:
    found = load_migrations()
    assert [m.version for m in found] == list(range(1, len(found) + 1))
    assert len(list(FOLDER.glob("*"))) >= len(found) >= 2
    assert all(1 <= m.min_compatible <= m.version for m in found)


def test_a_folder_without_any_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match="not whole"):
        load_migrations(tmp_path)


def test_they_come_in_order_with_their_contents(tmp_path: Path) -> None:
    write(tmp_path, m0002_b="-- min_compatible: 2\nSELECT 2;\n", m0001_a=GOOD)
    first, second = load_migrations(tmp_path)
    assert (first.version, first.name, first.sql, first.min_compatible) == (1, "0001_a", GOOD, 1)
    assert (second.version, second.name, second.min_compatible) == (2, "0002_b", 2)
    assert first.sha256 != second.sha256


def test_every_edit_changes_the_hash(tmp_path: Path) -> None:
    write(tmp_path, m0001_a=GOOD)
    before = load_migrations(tmp_path)[0].sha256
    write(tmp_path, m0001_a=GOOD + "\n")
    assert load_migrations(tmp_path)[0].sha256 != before


@pytest.mark.parametrize(
    "names", [("m0002_a",), ("m0001_a", "m0003_b"), ("m0001_a", "m0001_b"), ("m0000_a", "m0001_b")]
)
def test_a_gap_or_a_number_used_twice_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    write(tmp_path, **dict.fromkeys(names, GOOD))
    with pytest.raises(MigrationError, match="without a gap"):
        load_migrations(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1;\n",
        "\n" + GOOD,
        "-- min_compatible: \nSELECT 1;",
        "-- min_compatible: x\n",
        "-- Min_compatible: 1\n",
        "",
    ],
)
def test_a_file_without_the_header_is_refused(tmp_path: Path, text: str) -> None:
    write(tmp_path, m0001_a=GOOD, m0002_b=text)
    with pytest.raises(MigrationError, match=r"0002_b\.sql does not begin with `-- min_compatible: N`"):
        load_migrations(tmp_path)


@pytest.mark.parametrize("name", ["mabcd_a", "m1_a", "m00010_a", "m0001", "m0001_", "m0001-a", "m0001_A"])
def test_a_misnamed_file_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, **{name: GOOD})
    with pytest.raises(MigrationError, match=name[1:]):
        load_migrations(tmp_path)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path, m0001_a=GOOD)
    (tmp_path / "README.md").write_text("x")
    assert len(load_migrations(tmp_path)) == 1
