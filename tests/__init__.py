"""Tests. Processes are only ever forked to run another program, so grpc need not prepare for a fork: its handlers have
killed children that were to become Postgres."""

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
