"""The error vocabulary, the table that maps it to codes, and the page that explains it say the same."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from lictor.common.v1.error_reason_pb2 import ErrorReason

from shared.errors import CODES, Reason
from tests.contract.reading import ROOT
from tools import errors_doc

DOCUMENTED = errors_doc.reasons()


def test_the_page_is_fresh() -> None:
    assert errors_doc.PAGE.read_text() == errors_doc.render(), "run `.venv/bin/python tools/errors_doc.py make`"


def test_code_and_contract_have_the_same_reasons() -> None:
    assert [reason.value for reason in Reason] == list(ErrorReason.Reason.keys())[1:]
    assert CODES.keys() == set(Reason)


@pytest.mark.parametrize("documented", DOCUMENTED, ids=lambda one: one.name)
def test_a_comment_names_the_code_that_is_sent(documented: errors_doc.Reason) -> None:
    assert documented.code == CODES[Reason(documented.name)].name


@pytest.mark.parametrize("documented", DOCUMENTED, ids=lambda one: one.name)
def test_an_example_is_of_its_own_reason_and_has_the_keys_that_are_listed(documented: errors_doc.Reason) -> None:
    assert f'"reason": "{documented.name}"' in documented.example
    assert documented.example_metadata == documented.metadata


def _trees() -> Iterator[ast.AST]:
    for folder in ("services", "shared"):
        for path in (ROOT / folder).rglob("*.py"):
            yield ast.parse(path.read_text())


def _violation_words() -> Iterator[str]:
    """The reasons of FieldViolations in the code: the second argument, or `reason=` of a check."""
    for tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield from _words_of(node)


def _words_of(call: ast.Call) -> Iterator[str]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    candidates: list[ast.expr] = []
    if name in {"FieldViolation", "_bad"}:
        candidates += call.args[1:2]
    if name in {"FieldViolation", "text"}:
        candidates += [keyword.value for keyword in call.keywords if keyword.arg == "reason"]
    for value in candidates:
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield value.value


def test_the_page_explains_the_words_of_field_violations() -> None:
    used = set(_violation_words())
    assert len(used) > 20
    assert used - errors_doc.VIOLATIONS.keys() == set(), "add them to VIOLATIONS in tools/errors_doc.py"


def test_the_page_explains_no_word_that_is_not_there() -> None:
    constants = {node.value for tree in _trees() for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert errors_doc.VIOLATIONS.keys() - constants == set(), "remove them from VIOLATIONS in tools/errors_doc.py"
