"""Settings of the machine service."""

from __future__ import annotations

from pydantic import Field

from shared.settings import FactsSettings


class Settings(FactsSettings):
    """What every target needs that keeps facts in memory, and what the worker of machines needs."""

    machine_sweep_interval_s: float = Field(default=5.0, gt=0)
    """How often machines are looked for that have died, or are to lose their seats: how late the event of it may be."""
