"""How old connections become, on both transports."""

from __future__ import annotations

from typing import Final

CONNECTION_AGE_S: Final = 300.0
"""How old a connection becomes before its caller is sent away, so that callers spread over new processes."""
CONNECTION_AGE_GRACE_S: Final = 60.0
"""What the calls on a connection that has reached its age may still take, on grpcio: under Envoy they end by themselves."""
