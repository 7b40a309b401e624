"""Settings of the machine service."""

from __future__ import annotations

from shared.settings import FactsSettings


class Settings(FactsSettings):
    """What every target needs that keeps facts in memory, and nothing of its own yet."""
