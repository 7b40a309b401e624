"""Settings of the license service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from shared.settings import FactsSettings


class Settings(FactsSettings):
    """What every target needs, and what the sweeper of stored results and the keeping of license keys need."""

    kek_file: Path | None = None
    """The key-encryption key: lines `<version> <hex>`, mode 0600. Absent: no license key can be kept to be shown again, and
    nothing can be signed."""

    request_sweep_interval_s: float = 60.0
    """How often results of mutations older than 24 hours are deleted."""

    boundary_interval_s: float = Field(default=5.0, gt=0)
    """How often licenses are looked for that expire, or are to check in: how late the event of a boundary may be."""

    mark_interval_s: float = Field(default=5.0, gt=0)
    """How often it is written when licenses were found valid: what a process that is killed loses."""
