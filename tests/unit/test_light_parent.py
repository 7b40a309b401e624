"""The process that only watches over Envoy loads nothing of what it does not serve."""

from __future__ import annotations

import subprocess
import sys

WATCHES = """
import sys
import services.cli, services.main, uvloop
assert services.main.mapped_services(("lictor.license",))
print(*sorted({"asyncpg", "grpc", "services.license.app", "lictor"} & set(sys.modules)))
"""


def test_it_loads_no_driver_no_grpc_and_no_service() -> None:
    loaded = subprocess.run([sys.executable, "-c", WATCHES], text=True, capture_output=True, check=True, timeout=30)
    assert loaded.stdout.split() == []
