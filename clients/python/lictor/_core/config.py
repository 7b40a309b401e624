"""Where the client calls and how: checked once, then the same for both flavours."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import grpc

DEFAULT_ENDPOINT: Final = "127.0.0.1:7420"
MANAGEMENT_TIMEOUT_S: Final = 10.0
HOT_TIMEOUT_S: Final = 1.0

# The client retries by itself, because only it knows which calls carry a request_id and what RetryInfo says.
SERVICE_CONFIG: Final = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
CHANNEL_OPTIONS: Final[tuple[tuple[str, str | int], ...]] = (
    ("grpc.service_config", SERVICE_CONFIG),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # without it an answer may take a minute, whatever the one above says
    # A restarted server is found again within one call's tries, not a second later.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


def is_loopback(endpoint: str) -> bool:
    """Whether calls to `endpoint` stay on this machine."""
    if endpoint.startswith(("unix:", "unix-abstract:")):
        return True
    target = endpoint.removeprefix("dns:").lstrip("/").removeprefix("ipv4:").removeprefix("ipv6:")
    host = target[1:].partition("]")[0] if target.startswith("[") else target.rpartition(":")[0] or target
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_timeout(timeout_s: float | None) -> float | None:
    """Refuses a time that no call could meet."""
    if timeout_s is not None and not timeout_s > 0:
        raise ValueError(f"timeout_s must be more than 0, not {timeout_s}")
    return timeout_s


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """An encrypted connection: files in PEM, read when the connection is made.

    `cert_file` and `key_file` are the caller's own certificate, its intermediates after it, and its private key.
    """

    ca_file: str | Path | None = None
    """The authorities of the server's certificate; by default those that gRPC brings."""
    cert_file: str | Path | None = None
    key_file: str | Path | None = None

    def __post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("a client certificate is two files: give both cert_file and key_file, or neither")

    @property
    def shows_certificate(self) -> bool:
        return self.cert_file is not None

    def credentials(self) -> grpc.ChannelCredentials:
        """OSError names a file that cannot be read."""
        return grpc.ssl_channel_credentials(_read(self.ca_file), _read(self.key_file), _read(self.cert_file))


def _read(file: str | Path | None) -> bytes | None:
    return None if file is None else Path(file).read_bytes()


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """The checked settings of one client. `timeout_s` replaces both defaults: 10 s, and 1 s for hot calls.

    An empty `api_key` sends no credential; a `license_key` goes with a publishable one.
    Plaintext leaves this machine only with `insecure=True`.
    """

    endpoint: str = DEFAULT_ENDPOINT
    api_key: str = field(default="", repr=False)
    timeout_s: float | None = None
    tls: TlsConfig | None = None
    insecure: bool = False
    license_key: str = field(default="", repr=False)

    @classmethod
    def of_caller(
        cls,
        *,
        api_key: str | None,
        license_key: str | None = None,
        endpoint: str,
        timeout_s: float | None,
        tls: TlsConfig | None,
        insecure: bool,
    ) -> Self:
        """The settings of a caller who has a credential: an API key, or a client certificate and None."""
        if api_key is None and (tls is None or not tls.shows_certificate):
            raise ValueError(
                "api_key is missing: give one, or a client certificate with tls=TlsConfig(cert_file=..., key_file=...)"
            )
        if api_key == "":
            raise ValueError("api_key is empty")
        if license_key is not None and not license_key.strip():
            raise ValueError("license_key is empty")
        if license_key is not None and not (api_key or "").startswith("pk_"):
            raise ValueError("license_key goes with a publishable key: api_key must begin with pk_")
        return cls(endpoint, api_key or "", timeout_s, tls, insecure, (license_key or "").strip())

    def __post_init__(self) -> None:
        # grpc would put a malformed header, key included, into its own exception.
        if not all("!" <= letter <= "~" for letter in self.api_key):
            raise ValueError("api_key has characters that no key has, such as a space or a line break")
        if not all("!" <= letter <= "~" for letter in self.license_key):
            raise ValueError("license_key has characters that no license key has, such as a space or a line break")
        check_timeout(self.timeout_s)
        if self.insecure and self.tls is not None:
            raise ValueError("insecure=True contradicts tls")
        if self.tls is None and not self.insecure and not is_loopback(self.endpoint):
            raise ValueError(
                f"{self.endpoint!r} is not on this machine, and the API key would travel unencrypted: "
                "use tls=TlsConfig(), or insecure=True where something else encrypts"
            )

    def limit_s(self, asked: float | None, *, hot: bool) -> float:
        """The time for a whole call, its retries included."""
        chosen = check_timeout(asked) or self.timeout_s
        return chosen or (HOT_TIMEOUT_S if hot else MANAGEMENT_TIMEOUT_S)

    def metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        if self.license_key:
            return (("authorization", f"License {self.api_key}:{self.license_key}"),)
        return (("authorization", f"Bearer {self.api_key}"),) if self.api_key else ()

    def options(self) -> tuple[tuple[str, str | int], ...]:
        """A proxy named in the environment must not see a plaintext call that was meant to stay on this machine."""
        direct = (("grpc.enable_http_proxy", 0),) if is_loopback(self.endpoint) else ()
        return CHANNEL_OPTIONS + direct
