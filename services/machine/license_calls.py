"""The license service as a machine process of its own calls it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import grpc
import grpc.aio

from services.machine.settings import Settings
from shared.crypto.service_tokens import ServiceTokens
from shared.rpc.client import ChannelCaller, ServiceCaller
from shared.settings import SettingsError

ISSUER: Final = "machine"
"""Who calls, as its tokens say."""
_OPTIONS: Final = (("grpc.lb_policy_name", "round_robin"),)
"""A name may stand for several processes."""


@asynccontextmanager
async def license_calls(settings: Settings, tokens: ServiceTokens) -> AsyncGenerator[ServiceCaller]:
    """Calls the process that `license_addr` names, while the block runs. It connects with the first call.

    Raises:
        SettingsError: A file of the certificates cannot be read.
    """
    async with _channel(settings) as channel:
        yield ChannelCaller(channel, tokens, ISSUER)


def _channel(settings: Settings) -> grpc.aio.Channel:
    if settings.license_ca_file is None:
        return grpc.aio.insecure_channel(settings.license_addr, _OPTIONS)
    try:
        # The process's own certificate is shown too, where it has one: that one may ask its callers for theirs.
        credentials = grpc.ssl_channel_credentials(
            settings.license_ca_file.read_bytes(), _read(settings.tls_key_file), _read(settings.tls_cert_file)
        )
    except OSError as error:
        raise SettingsError(f"a certificate's file cannot be read: {error}") from None
    return grpc.aio.secure_channel(settings.license_addr, credentials, _OPTIONS)


def _read(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()
