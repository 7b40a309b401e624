"""A service with one empty method behind the whole standard chain, on either transport.

    python -m tests.bench.empty_service envoy|grpcio

As a module it is what Envoy loads. Its request is a `BytesValue`, so that it takes requests of any size, and those of
most other methods as they are: a message in field 1 looks the same as bytes there.
"""

from __future__ import annotations

import sys
from typing import Final

import uvloop
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import BytesValue
from lictor.common.v1 import options_pb2

from shared.errors import DomainError, Reason
from shared.rpc.context import CallContext
from shared.rpc.routes import ServiceBinding
from shared.tenancy import Mode, Principal, PrincipalKind
from tests.bench.hosting import application, run_inside_envoy, serve_one

SERVICE: Final = "lictor.bench.v1.EmptyService"
METHOD: Final = "Do"
SCOPE: Final = "bench:do"
_FILE: Final = "lictor/bench/v1/empty.proto"
_PRINCIPAL: Final = Principal(PrincipalKind.SECRET_KEY, "acc_1", Mode.TEST, "key_1", frozenset({SCOPE}), None)


def _describe() -> ServiceDescriptor:
    file = descriptor_pb2.FileDescriptorProto(name=_FILE, package="lictor.bench.v1", syntax="proto3")
    file.dependency.extend(
        ["lictor/common/v1/options.proto", "google/protobuf/empty.proto", "google/protobuf/wrappers.proto"]
    )
    method = file.service.add(name="EmptyService").method.add(
        name=METHOD, input_type=".google.protobuf.BytesValue", output_type=".google.protobuf.Empty"
    )
    method.options.Extensions[options_pb2.rules].CopyFrom(options_pb2.MethodRules(scope=SCOPE, hot=True))
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindFileByName(_FILE).services_by_name["EmptyService"]


class _EmptyServicer:
    async def Do(self, request: BytesValue, context: CallContext) -> Empty:
        del request, context
        return Empty()


class _OnePrincipal:
    """Knows everybody who shows anything, from memory: a real lookup is measured elsewhere."""

    async def authenticate(self, authorization: str | None, peer_identity: str, *, in_grace: bool = False) -> Principal:
        del peer_identity
        if not authorization:
            raise DomainError(Reason.CREDENTIALS_INVALID, "the credential is absent")
        return _PRINCIPAL


BINDING: Final = ServiceBinding(_describe(), _EmptyServicer())
app: Final = application(BINDING, _OnePrincipal())

if __name__ == "__main__":
    if sys.argv[1:] == ["grpcio"]:
        uvloop.run(serve_one(BINDING, _OnePrincipal()))
    else:
        run_inside_envoy("tests.bench.empty_service:app")
