"""The conformance service as a program: `python -m tests.conformance.server grpcio|envoy`. Envoy loads it as a module.

`CONFORMANCE_AGE_S` in the environment makes its connections short-lived.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Final

from shared.observe.metrics import Metrics
from shared.rpc.ages import CONNECTION_AGE_S
from shared.rpc.grpcio import GrpcioTransport
from shared.rpc.routes import ServiceBinding
from shared.rpc.runtime import GrpcioHost
from tests.bench.hosting import application, run_inside_envoy, serve_one
from tests.conformance.servicer import ConformanceAuthenticator, TestServicer
from tests.protos.lictor_test.v1 import test_service_pb2 as pb

AGE_S: Final = float(os.environ.get("CONFORMANCE_AGE_S", CONNECTION_AGE_S))
DRAIN_S: Final = 10.0


class _AgingHost(GrpcioHost):
    def transport(self, metrics: Metrics) -> GrpcioTransport:
        return GrpcioTransport(metrics, AGE_S)


_binding: Final = ServiceBinding(pb.DESCRIPTOR.services_by_name["TestService"], TestServicer())
app: Final = application(_binding, ConformanceAuthenticator(), DRAIN_S)

if __name__ == "__main__":
    if sys.argv[1] == "envoy":
        run_inside_envoy("tests.conformance.server:app", AGE_S)
    else:
        asyncio.run(serve_one(_binding, ConformanceAuthenticator(), _AgingHost(), DRAIN_S))
