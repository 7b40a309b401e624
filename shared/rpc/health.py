"""The standard services, served by the standard servicers: `grpc.health.v1` and reflection."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol, cast

from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from shared.rpc.routes import ServiceBinding


class _HealthServicer(Protocol):
    """The typed face of `grpc_health.v1.health.aio.HealthServicer`, which ships without annotations."""

    async def set(self, service: str, status: int) -> None: ...

    async def enter_graceful_shutdown(self) -> None: ...


HEALTH: Final = cast("ServiceDescriptor", health_pb2.DESCRIPTOR.services_by_name["Health"])
REFLECTION: Final = cast("ServiceDescriptor", reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"])
_new_health = cast("Callable[[], _HealthServicer]", cast("Any", health).aio.HealthServicer)
_new_reflection = cast("Callable[[Iterable[str]], object]", cast("Any", reflection).aio.ReflectionServicer)


class HealthBoard:
    """What `grpc.health.v1` says of this process: all services and the process as a whole are SERVING, or none is."""

    def __init__(self, services: Iterable[str]) -> None:
        self._names = ("", *services)
        self._servicer = _new_health()

    @property
    def binding(self) -> ServiceBinding:
        """The service, to be bound on every listener that answers health checks."""
        return ServiceBinding(HEALTH, self._servicer)

    def also(self, services: Iterable[str]) -> None:
        """Adds services; `set_serving` tells of them."""
        self._names = tuple(dict.fromkeys((*self._names, *services)))

    async def set_serving(self, serving: bool) -> None:
        """Tells callers and watchers. Does nothing once the process leaves."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in self._names:
            await self._servicer.set(name, status)

    async def leave(self) -> None:
        """NOT_SERVING for good."""
        await self._servicer.enter_graceful_shutdown()


def reflection_binding(services: Iterable[str]) -> ServiceBinding:
    """Reflection that lists `services` and itself."""
    return ServiceBinding(REFLECTION, _new_reflection((*services, REFLECTION.full_name)))
