"""The documents name what is there: settings, metrics, targets, commands, files, states and codes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest
from prometheus_client import generate_latest

from services.cli import app
from services.license.codes import Code
from services.license.model import TRANSITIONS, Action, Status
from services.license.worker_metrics import WorkerMetrics
from services.main import SETTINGS
from shared.db.roles import Role
from shared.observe.metrics import Metrics
from shared.settings import OTHER_VARIABLES, PREFIX
from shared.tenancy import ACCOUNT_SCOPES, OPERATOR_SCOPES
from tests.contract.reading import ROOT
from tools import events_doc

PAGES: Final = (
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "protos" / "README.md",
    ROOT / "clients" / "python" / "README.md",
)
ADRS: Final = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE: Final = re.compile(r"^```\w*\n(.*?)^```|`([^`\n]+)`", re.MULTILINE | re.DOTALL)
EACH = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
OPERATIONS: Final = (ROOT / "docs" / "operations.md").read_text()
LICENSING: Final = (ROOT / "docs" / "licensing.md").read_text()


def code_lines(page: Path) -> list[str]:
    """What stands in code blocks and code spans, line by line."""
    return [line for block, span in CODE.findall(page.read_text()) for line in (block or span).splitlines()]


def anchors(page: Path) -> set[str]:
    """The names that a page's headings can be linked by."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@EACH
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@EACH
def test_make_targets_that_are_named_are_there(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for line in code_lines(page) for word in re.findall(r"(?:^|\s)make ([a-z][a-z-]*)", line)}
    assert named <= targets


@EACH
def test_commands_that_are_named_are_there(page: Path) -> None:
    groups = {
        group.name: [command.name for command in group.typer_instance.registered_commands]
        for group in app.registered_groups
        if group.typer_instance is not None
    }
    commands = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    for line in code_lines(page):
        for word, following in re.findall(r"(?:^|&& |bin/)lictor ([a-z]+) ?(\S*)", line):
            if word in groups:
                assert following in {"", *groups[word]}, line
            else:
                assert word in commands, line


def test_readme_shows_both_commands_first() -> None:
    screen = (ROOT / "README.md").read_text().splitlines()[:40]
    assert {"make run", "make test"} <= {line.strip().split("  ")[0] for line in screen}


def test_operations_explains_every_setting() -> None:
    names = {PREFIX + field.upper() for kind in SETTINGS.values() for field in kind.model_fields} | OTHER_VARIABLES
    rows = set(re.findall(r"^\| `(LICTOR_\w+)`", OPERATIONS, re.MULTILINE))
    assert rows == names


def test_operations_tells_the_defaults_of_settings() -> None:
    for name, field in (one for kind in SETTINGS.values() for one in kind.model_fields.items()):
        if field.is_required() or field.default is None:
            continue
        value = field.default
        shown = (
            str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
        )
        row = next(line for line in OPERATIONS.splitlines() if line.startswith(f"| `{PREFIX}{name.upper()}`"))
        assert f"`{shown}`" in row, row


def test_operations_explains_every_metric() -> None:
    metrics = Metrics()
    for collector in WorkerMetrics().collectors:
        metrics.registry.register(collector)
    exposed = generate_latest(metrics.registry).decode()
    families = set(re.findall(r"^# TYPE (lictor_\w+?)(?:_created)? ", exposed, re.MULTILINE))
    assert families
    assert {name for name in families if f"`{name}" not in OPERATIONS} == set()


def test_operations_explains_every_role() -> None:
    assert {role.value for role in Role if f"`{role.value}`" not in OPERATIONS} == set()


def test_licensing_shows_the_whole_table_of_states() -> None:
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", LICENSING, re.MULTILINE)
    shown = {name: [cell.strip().strip("`") for cell in cells.split("|")] for name, cells in rows}
    columns = (
        (Action.SUSPEND,), (Action.REINSTATE,), (Action.RENEW,), (Action.REVOKE,), (Action.BAN,),
        (
            Action.UPDATE, Action.CHANGE_TIER, Action.CHANGE_POLICY, Action.TRANSFER, Action.ROTATE_KEY,
            Action.DECREMENT_USES, Action.RESET_USES,
        ),
        (Action.INCREMENT_USES, Action.CHECK_IN),
    )  # fmt: skip
    assert {action for actions in columns for action in actions} == set(Action) - {Action.DELETE}
    for status in Status:
        for cell, actions in zip(shown[status.value], columns, strict=False):
            assert {str(TRANSITIONS.get((status, action), "refused")) for action in actions} == {cell}
        assert shown[status.value][len(columns) :] == ["gone"]


def test_licensing_explains_the_codes_in_their_order() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (\d+) \|", LICENSING, re.MULTILINE)
    assert [(name, int(number)) for name, number in rows] == [(code.name, code.value) for code in Code]


def test_security_names_every_scope() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    assert {scope for scope in ACCOUNT_SCOPES | OPERATOR_SCOPES if f"`{scope}`" not in text} == set()


def test_the_page_of_events_is_fresh() -> None:
    assert events_doc.PAGE.read_text() == events_doc.render(), "run `.venv/bin/python tools/events_doc.py make`"


def test_decisions_are_numbered_without_a_gap_and_have_four_parts() -> None:
    assert [int(path.name[:4]) for path in ADRS] == list(range(1, len(ADRS) + 1))
    index = (ROOT / "docs" / "adr" / "README.md").read_text()
    for path in ADRS:
        heads = re.findall(r"^## (.+)$", path.read_text(), re.MULTILINE)
        assert heads == ["Context", "Decision", "Consequences", "What would change our mind"], path.name
        assert f"({path.name})" in index, path.name


def test_prose_is_wrapped() -> None:
    long = [
        f"{page.relative_to(ROOT)}: {line[:60]}"
        for page in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))
        for line in page.read_text().splitlines()
        if len(line) > 125 and not line.startswith("|") and "http" not in line
    ]
    assert long == []
