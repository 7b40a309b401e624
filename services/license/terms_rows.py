"""The terms of a policy as columns of a row."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

import asyncpg

from services.license.terms import WORDS, PolicyLimit, Terms

TERMS: Final = tuple(field.name for field in fields(Terms))
"""The columns of license.policy that are terms, by the same names."""


def terms_of(row: asyncpg.Record) -> Terms:
    """The terms in a row that has all of their columns."""
    values: dict[str, Any] = {name: row[name] for name in TERMS}
    for name, word in WORDS.items():
        if values[name] is not None:
            values[name] = word(values[name])
    values["overridable"] = tuple(PolicyLimit(limit) for limit in values["overridable"])
    return Terms(**values)
