"""The echo service with the whole chain inside Envoy, and streams that last until their caller leaves.

As a program it starts Envoy, as a module Envoy loads it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from google.protobuf.wrappers_pb2 import StringValue
from lictor.license.v1.license_service_pb2 import CreateLicenseRequest

from shared.rpc.context import CallContext
from shared.rpc.routes import ServiceBinding
from tests.bench.hosting import application, run_inside_envoy
from tests.helpers.echo import ECHO, EchoAuthenticator, EchoServicer
from tests.helpers.envoy_echo import behave

EVERY_S: Final = 0.005
MESSAGES: Final = 1000
"""A stream that nobody breaks ends after these, so that none outlives the soak."""


class SoakServicer(EchoServicer):
    """`Expand` answers bit by bit; all else as the tests' servicer does."""

    async def Expand(self, request: CreateLicenseRequest, context: CallContext) -> AsyncIterator[StringValue]:
        del context
        for _ in range(MESSAGES):
            yield StringValue(value=request.display_name)
            await asyncio.sleep(EVERY_S)


_servicer: Final = SoakServicer()
_servicer.behaviour = behave
app: Final = application(ServiceBinding(ECHO, _servicer), EchoAuthenticator())

if __name__ == "__main__":
    run_inside_envoy("tests.bench.soak_app:app")
