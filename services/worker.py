"""One of several processes that serve over `grpcio`: started by `lictor serve`, with the same environment."""

from __future__ import annotations

import uvloop

from services.entry import serve
from services.refusals import REFUSALS
from shared.rpc.worker import run_worker

if __name__ == "__main__":
    uvloop.run(run_worker(serve, REFUSALS))
