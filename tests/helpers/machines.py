"""Machines as the record keeps them, for tests of what the license service makes of them."""

from __future__ import annotations

from datetime import datetime

from tests.helpers.lease import lease_passes
from tests.helpers.suite import Suite, World

_SEAT = """
    INSERT INTO machine.seat (account_id, mode, license_id, machines, first_activated_at) VALUES ($1, 'TEST', $2, $3, $4)
        ON CONFLICT (account_id, mode, license_id) DO UPDATE SET machines = excluded.machines
"""


async def has_machines(suite: Suite, world: World, license_id: str, first: datetime, machines: int = 1) -> None:
    """From now on a license has had machines since `first`, and has so many."""
    async with suite.admin() as conn:
        await conn.execute(_SEAT, world.account_id, license_id, machines, first)
    await lease_passes()
