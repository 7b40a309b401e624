"""What Envoy loads: the target that the environment names, as an ASGI application."""

from __future__ import annotations

from typing import Final

from services.entry import serve
from services.refusals import REFUSALS
from shared.rpc.envoy.host import EnvoyApplication

app: Final = EnvoyApplication(serve, REFUSALS)
