"""Settings of the machine service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from shared.rpc.addresses import split_address
from shared.settings import FactsSettings


class WorkerSettings(FactsSettings):
    """What every target needs that keeps facts in memory, and what the worker of machines needs."""

    machine_sweep_interval_s: float = Field(default=5.0, gt=0)
    """How often machines are looked for that have died, or are to lose their seats: how late the event of it may be."""


class Settings(WorkerSettings):
    """What a process of its own needs besides: where files are signed."""

    license_addr: str
    """Where a `license` process answers, host:port: it has the keys that machine files are signed with."""

    license_ca_file: Path | None = None
    """Authorities of that process's certificate, PEM; absent: it is called in plain text."""

    @field_validator("license_addr")
    @classmethod
    def _an_address(cls, given: str) -> str:
        split_address(given)
        return given
