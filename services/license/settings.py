"""Settings of the license service."""

from __future__ import annotations

from pathlib import Path

from shared.settings import ProcessSettings


class Settings(ProcessSettings):
    """What every target needs, and what the sweeper of stored results and the keeping of license keys need."""

    kek_file: Path | None = None
    """The key-encryption key: lines `<version> <hex>`, mode 0600. Absent: no license key can be kept to be shown again."""

    request_sweep_interval_s: float = 60.0
    """How often results of mutations older than 24 hours are deleted."""
