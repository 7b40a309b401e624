"""The image's health check: exit status 0 while /readyz of the ops listener says 200. Standard library only."""

from __future__ import annotations

import os
import sys
from http.client import HTTPConnection
from typing import Final

WITHIN_S: Final = 3.0
EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - recognised, not bound


def main() -> str | None:
    """What is wrong, or None."""
    host, _, port = os.environ["LICTOR_OPS_ADDR"].rpartition(":")
    connection = HTTPConnection(f"{EVERYWHERE.get(host, host)}:{port}", timeout=WITHIN_S)
    try:
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except OSError as error:
        return f"/readyz: {error}"
    finally:
        connection.close()
    return None if status == 200 else f"/readyz: {status}"


if __name__ == "__main__":
    sys.exit(main())
