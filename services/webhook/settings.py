"""Settings of the webhook service."""

from __future__ import annotations

from shared.settings import ProcessSettings


class Settings(ProcessSettings):
    """What every target needs, and nothing of its own yet."""
