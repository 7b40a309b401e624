"""Settings of the license service."""

from __future__ import annotations

from shared.settings import ProcessSettings


class Settings(ProcessSettings):
    """What every target needs, and what the sweeper of stored results needs."""

    request_sweep_interval_s: float = 60.0
    """How often results of mutations older than 24 hours are deleted."""
