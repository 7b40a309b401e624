"""What a process that another one started serves: the target that the environment names."""

from __future__ import annotations

from services.main import read_settings, read_target, serve_target
from shared.observe.logging import configure
from shared.rpc.runtime import Host
from shared.settings import LogFormat


async def serve(host: Host) -> None:
    """Serves under `host` until told to leave."""
    target = read_target()
    settings = read_settings(target)
    configure(json=settings.log_format is LogFormat.JSON, level=settings.log_level)
    await serve_target(target, settings, host)
