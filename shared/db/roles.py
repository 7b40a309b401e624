"""The database roles and what a process checks of its own before it serves."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import asyncpg


class Role(StrEnum):
    """Who may do what is granted in the migrations; no role has BYPASSRLS."""

    MIGRATE = "lictor_migrate"
    LICENSE = "lictor_license"
    LICENSE_WORKER = "lictor_license_worker"
    ENTITLEMENT = "lictor_entitlement"
    MACHINE = "lictor_machine"
    MACHINE_WORKER = "lictor_machine_worker"
    WEBHOOK = "lictor_webhook"
    FACTS = "lictor_facts"
    VIEWS = "lictor_views"


SCHEMAS: Final = ("record", "license", "entitlement", "machine", "webhook")
LOGIN_ROLES: Final = tuple(role for role in Role if role not in (Role.MIGRATE, Role.VIEWS))


class RoleRefusedError(Exception):
    """A process must not serve as this role; the message says why and what to do."""


def not_let_in(role: Role) -> RoleRefusedError:
    """What to do where Postgres refuses the role itself: it is not there, or its password is another."""
    return RoleRefusedError(
        f"Postgres does not let role {role.value!r} in: run `lictor migrate`, which makes it, "
        "and check LICTOR_POSTGRES_PASSWORD_FILE"
    )


async def refuse_powerful(conn: asyncpg.Connection) -> None:
    """Raises RoleRefusedError when the connection's role, or one that it can become, could walk through row-level security."""
    row = await conn.fetchrow(
        """
        WITH mine AS (SELECT oid, rolname, rolsuper, rolbypassrls FROM pg_roles WHERE pg_has_role(current_user, oid, 'MEMBER'))
        SELECT current_user AS name, bool_or(rolsuper) AS superuser, bool_or(rolbypassrls) AS bypass,
               bool_or(rolname = 'lictor_migrate') AS member,
               EXISTS (SELECT 1 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                        WHERE n.nspname = ANY ($1) AND c.relowner IN (SELECT oid FROM mine)) AS owner
          FROM mine
        """,
        list(SCHEMAS),
    )
    if row is None or row["superuser"] is None:
        raise RoleRefusedError("the database does not know this process's own role")
    for power, words in (
        ("superuser", "is a superuser, or can become one"),
        ("bypass", "has BYPASSRLS, or can become a role that has"),
        ("member", "is a member of lictor_migrate"),
        ("owner", "owns tables of the record"),
    ):
        if row[power]:
            raise RoleRefusedError(
                f"database role {row['name']!r} {words}: tenants would not be isolated. "
                "Serve as the plain roles that `lictor migrate` makes"
            )
