"""Settings of a serving process, from `LICTOR_*` in the environment. Secrets come from files, never from variables."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Final

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX: Final = "LICTOR_"
REDIS_SCHEMES: Final = ("redis://", "rediss://", "unix://")

OTHER_VARIABLES: Final = frozenset(
    {
        "LICTOR_TARGET",
        "LICTOR_POSTGRES_ADMIN_DSN",
        "LICTOR_STATE_DIR",
        "LICTOR_ENDPOINT",
        "LICTOR_API_KEY",
        "LICTOR_TLS_CA_FILE",
        "LICTOR_CLIENT_CERT_FILE",
        "LICTOR_CLIENT_KEY_FILE",
        "LICTOR_MACHINE_ID_FILE",
        "LICTOR_NODE_UID",
        "LICTOR_POD_UID",
    }
)
"""What other commands and the client read; known to the check for misspelled names."""


class Target(StrEnum):
    """What a process serves."""

    LICENSE = "license"
    ENTITLEMENT = "entitlement"
    MACHINE = "machine"
    WEBHOOK = "webhook"
    ALL = "all"


class Transport(StrEnum):
    """How a process is called; see docs/transports.md."""

    GRPCIO = "grpcio"
    ENVOY = "envoy"
    AUTO = "auto"
    """Envoy where it can be, grpcio elsewhere. For machines of one's own: a deployment names what it runs on."""


class LogFormat(StrEnum):
    """How log lines look."""

    JSON = "json"
    TEXT = "text"


class SettingsError(Exception):
    """The environment is wrong; the message names every bad variable."""


class ProcessSettings(BaseSettings):
    """What every target needs."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", use_attribute_docstrings=True)

    transport: Transport
    """The transport; it must be named."""

    api_addr: str = "127.0.0.1:7420"
    """Where the services answer, host:port. Port 0 takes a free one."""

    json_addr: str | None = None
    """Where the services answer JSON over HTTP, host:port; absent: nowhere. Needs the transport envoy."""

    ops_addr: str = "127.0.0.1:7421"
    """Where /livez, /readyz and /metrics answer over HTTP."""

    ops_grpc_addr: str = "127.0.0.1:7422"
    """Where grpc.health.v1 answers for probes, apart from the services' own listener."""

    postgres_dsn: SecretStr
    """The record, without a user: each pool connects as its own role."""

    postgres_password_file: Path | None = None
    """Lines `role=password`; absent where roles need none."""

    root_secret_file: Path
    """The root secret: lines `<version> <hex>`, mode 0600."""

    tls_cert_file: Path | None = None
    """The certificate that the services' listeners show, PEM, its intermediates after it; absent: no TLS."""

    tls_key_file: Path | None = None
    """The private key of that certificate, PEM."""

    tls_client_ca_file: Path | None = None
    """Authorities of callers' certificates, PEM. With it every caller must show one."""

    trusted_proxies: int = Field(default=0, ge=0)
    """How many proxies in front are believed about the address of a caller."""

    processes: int = Field(default=1, ge=1, le=64)
    """Processes that serve on the same port, one per core."""

    pool_size: int = 8
    """Connections per database role."""

    reflection: bool = False
    """Whether grpc.reflection answers; off in production."""

    max_in_flight: int = 512
    """Calls at once; more are refused with OVERLOADED."""

    account_share_percent: int = Field(default=25, ge=1, le=100)
    """How much of `max_in_flight` the calls of one account may take."""

    lame_duck_s: float = 5.0
    """How long a stopping process still takes calls after it has said NOT_SERVING."""

    drain_s: float = 25.0
    """How long it then waits for calls in flight."""

    log_format: LogFormat = LogFormat.JSON
    """JSON for machines, text for people."""

    log_level: str = "INFO"
    """The least level that is logged."""


class FactsSettings(ProcessSettings):
    """What a target needs besides that keeps facts in memory."""

    facts_memory_bytes: int = Field(default=256 * 1024 * 1024, ge=0)
    """About how many bytes of facts are kept in memory; those used longest ago go first."""

    redis_url: SecretStr | None = None
    """Where facts are kept beside the record: `redis://`, `rediss://` or `unix://`. Absent or empty: nowhere."""

    redis_password_file: Path | None = None
    """The password of the user that `redis_url` names, or of the default one."""

    @field_validator("redis_url")
    @classmethod
    def _of_a_redis(cls, given: SecretStr | None) -> SecretStr | None:
        url = given.get_secret_value() if given is not None else ""
        if not url:
            return None
        if not url.startswith(REDIS_SCHEMES):
            raise ValueError(f"it must begin with one of {', '.join(REDIS_SCHEMES)}")
        return given


def refuse_unknown(*known: type[ProcessSettings]) -> None:
    """Raises SettingsError for a LICTOR_ variable that nothing reads: a misspelled setting must not pass silently."""
    names = {PREFIX + name.upper() for settings in known for name in settings.model_fields} | OTHER_VARIABLES
    unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in names)
    if unknown:
        raise SettingsError(f"unknown settings: {', '.join(unknown)}; known are {', '.join(sorted(names))}")
