"""The epoch: what transaction ids mean something within."""

from __future__ import annotations

from typing import Final

EPOCH: Final = (
    "(SELECT md5(e.epoch::text || e.tableoid::text || (SELECT d.oid::text FROM pg_database AS d "
    "WHERE d.datname = current_database()))::uuid FROM record.epoch AS e)"
)
"""A uuid; NULL right after a crash of Postgres, before somebody has begun a new one. The row's own id vanishes with a crash or
a promotion, but is in a dump: the table's id and the database's are not those of what was restored."""
