"""Settings of the license service."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import Field, SecretStr, field_validator

from shared.settings import ProcessSettings

REDIS_SCHEMES: Final = ("redis://", "rediss://", "unix://")


class Settings(ProcessSettings):
    """What every target needs, and what the sweeper of stored results and the keeping of license keys need."""

    kek_file: Path | None = None
    """The key-encryption key: lines `<version> <hex>`, mode 0600. Absent: no license key can be kept to be shown again."""

    facts_memory_bytes: int = Field(default=256 * 1024 * 1024, ge=0)
    """About how many bytes of facts are kept in memory; those used longest ago go first."""

    redis_url: SecretStr | None = None
    """Where facts are kept beside the record: `redis://`, `rediss://` or `unix://`. Absent or empty: nowhere."""

    redis_password_file: Path | None = None
    """The password of the user that `redis_url` names, or of the default one."""

    request_sweep_interval_s: float = 60.0
    """How often results of mutations older than 24 hours are deleted."""

    boundary_interval_s: float = Field(default=5.0, gt=0)
    """How often licenses are looked for that expire, or are to check in: how late the event of a boundary may be."""

    mark_interval_s: float = Field(default=5.0, gt=0)
    """How often it is written when licenses were found valid: what a process that is killed loses."""

    @field_validator("redis_url")
    @classmethod
    def _of_a_redis(cls, given: SecretStr | None) -> SecretStr | None:
        url = given.get_secret_value() if given is not None else ""
        if not url:
            return None
        if not url.startswith(REDIS_SCHEMES):
            raise ValueError(f"it must begin with one of {', '.join(REDIS_SCHEMES)}")
        return given
