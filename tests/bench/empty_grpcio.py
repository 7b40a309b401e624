"""The baseline: a bare `grpc.aio` server under uvloop that answers every call with nothing. None of our code is in it."""

from __future__ import annotations

import asyncio
import os
import signal

import grpc
import grpc.aio
import uvloop


class _Empty(grpc.GenericRpcHandler):
    def __init__(self) -> None:
        self._handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self._answer)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        del handler_call_details
        return self._handler

    async def _answer(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        del request, context
        return b""


async def _serve() -> None:
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0), ("grpc.max_concurrent_streams", 256)))
    server.add_generic_rpc_handlers((_Empty(),))
    server.add_insecure_port(os.environ["LICTOR_API_ADDR"])
    await server.start()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    await server.stop(0)


if __name__ == "__main__":
    uvloop.run(_serve())
