"""The database roles and what a process checks of its own before it serves."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import asyncpg
import asyncpg.pool


class Role(StrEnum):
    """Who may do what is granted in the migrations; no role has BYPASSRLS."""

    MIGRATE = "lictor_migrate"
    LICENSE = "lictor_license"
    LICENSE_WORKER = "lictor_license_worker"
    ENTITLEMENT = "lictor_entitlement"
    MACHINE = "lictor_machine"
    WEBHOOK = "lictor_webhook"
    FACTS = "lictor_facts"
    VIEWS = "lictor_views"


Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy
"""A connection, held or borrowed."""

SCHEMAS: Final = ("record", "license", "entitlement", "machine", "webhook")
LOGIN_ROLES: Final = tuple(role for role in Role if role not in (Role.MIGRATE, Role.VIEWS))


class RoleRefusedError(Exception):
    """A process must not serve as this role; the message says why and what to do."""


async def refuse_powerful(conn: Connection) -> None:
    """Raises RoleRefusedError when the connection's role could walk through row-level security."""
    row = await conn.fetchrow(
        """
        SELECT current_user AS name, r.rolsuper AS superuser, r.rolbypassrls AS bypass,
               pg_has_role(current_user, 'lictor_migrate', 'MEMBER') AS member,
               EXISTS (SELECT 1 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                        WHERE n.nspname = ANY ($1) AND c.relowner = r.oid) AS owner
          FROM pg_roles AS r WHERE r.rolname = current_user
        """,
        list(SCHEMAS),
    )
    if row is None:
        raise RoleRefusedError("the database does not know this process's own role")
    for power, words in (
        ("superuser", "is a superuser"),
        ("bypass", "has BYPASSRLS"),
        ("owner", "owns tables of the record"),
        ("member", "is a member of lictor_migrate"),
    ):
        if row[power]:
            raise RoleRefusedError(
                f"database role {row['name']!r} {words}: tenants would not be isolated. "
                "Serve as the plain roles that `lictor migrate` makes"
            )
