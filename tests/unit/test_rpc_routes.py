"""The route table: what is read from descriptors, what is refused at start, and how the chain is composed."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, cast

import pytest
from google.api import annotations_pb2  # pyright: ignore[reportMissingTypeStubs]
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.wrappers_pb2 import StringValue
from lictor.common.v1 import options_pb2
from lictor.license.v1 import license_service_pb2, validation_service_pb2
from lictor.license.v1.license_service_pb2 import CreateLicenseRequest, CreateLicenseResponse

from shared.rpc.context import CallContext, Metadata
from shared.rpc.health import HEALTH, HealthBoard
from shared.rpc.routes import (
    Body,
    Effect,
    Endpoint,
    Kind,
    MethodSpec,
    Middleware,
    Rules,
    ServiceBinding,
    build_routes,
    method_spec,
)
from shared.tenancy import PrincipalKind
from tests.helpers.echo import ECHO, SERVICE, EchoServicer

ROOT = Path(__file__).resolve().parents[2]


class Recording:
    """The transport's side of a call that never leaves the process."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def peer(self) -> str:
        return "test"

    def peer_identity(self) -> str:
        return ""

    async def send(self, message: bytes) -> None:
        self.sent.append(message)

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        raise AssertionError("unused")


def context(wire: Recording) -> CallContext:
    return CallContext(method="/m", service="s", wire=wire, metadata=(), time_left_s=None)


def test_rules_come_from_the_contract() -> None:
    create = license_service_pb2.DESCRIPTOR.services_by_name["LicenseService"].methods_by_name["CreateLicense"]
    spec = method_spec(create)
    assert spec.path == "/lictor.license.v1.LicenseService/CreateLicense"
    assert (spec.service, spec.name, spec.kind) == (
        "lictor.license.v1.LicenseService",
        "CreateLicense",
        Kind.UNARY_UNARY,
    )
    assert (spec.request_class, spec.response_class) == (CreateLicenseRequest, CreateLicenseResponse)
    assert spec.rules.effect is not Effect.NONE
    assert spec.rules.idempotent
    assert spec.mutates
    validate = validation_service_pb2.DESCRIPTOR.services_by_name["ValidationService"].methods_by_name
    assert method_spec(validate["ValidateLicense"]).rules == Rules(
        scope="licenses:validate",
        hot=True,
        also_serves=frozenset({PrincipalKind.PUBLISHABLE_KEY, PrincipalKind.LICENSE_KEY}),
        in_grace=True,
    )


def test_kinds() -> None:
    kinds = {method.name: method_spec(method).kind for method in ECHO.methods}
    assert kinds["Expand"] is Kind.UNARY_STREAM
    assert kinds["Collect"] is Kind.STREAM_UNARY
    assert kinds["Chat"] is Kind.STREAM_STREAM


def test_standard_services_are_anonymous_and_have_no_rules() -> None:
    for method in HEALTH.methods:
        spec = method_spec(method)
        assert (spec.anonymous, spec.rules, spec.mutates) == (True, Rules(), False)
    assert not method_spec(ECHO.methods_by_name["Open"]).anonymous


async def test_what_grpcs_own_health_servicer_leaves_unserved_is_no_route() -> None:
    routes = build_routes([HealthBoard([]).binding], [])
    assert set(routes) == {"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"}


def test_a_method_of_ours_without_rules_is_refused() -> None:
    file = descriptor_pb2.FileDescriptorProto(name="lictor/testing/v1/lawless.proto", package="lictor.testing.v1")
    file.dependency.append("google/protobuf/wrappers.proto")
    file.service.add(name="LawlessService").method.add(
        name="Do", input_type=".google.protobuf.StringValue", output_type=".google.protobuf.StringValue"
    )
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    service = pool.FindFileByName(file.name).services_by_name["LawlessService"]
    with pytest.raises(ValueError, match="states no"):
        build_routes([ServiceBinding(service, object())], [])


def test_the_fields_of_a_path_are_strings_of_the_request() -> None:
    methods = license_service_pb2.DESCRIPTOR.services_by_name["LicenseService"].methods_by_name
    assert [field.name for field in method_spec(methods["RevokeLicense"]).in_path] == ["license_id"]
    assert method_spec(methods["CreateLicense"]).in_path == ()
    for number, path in enumerate(("/v1/{customer.email}", "/v1/{customer}", "/v1/{nothing=things/*}")):
        file = descriptor_pb2.FileDescriptorProto(name=f"test{number}.proto", package="lictor.paths", syntax="proto3")
        file.dependency.extend(
            [
                "lictor/license/v1/license_service.proto",
                "lictor/common/v1/options.proto",
                "google/api/annotations.proto",
            ]
        )
        method = file.service.add(name=f"Service{number}").method.add(
            name="Do",
            input_type=".lictor.license.v1.CreateLicenseRequest",
            output_type=".lictor.license.v1.CreateLicenseResponse",
        )
        method.options.Extensions[options_pb2.rules].SetInParent()
        method.options.Extensions[cast("Any", annotations_pb2).http].get = path
        pool = descriptor_pool.Default()
        pool.AddSerializedFile(file.SerializeToString())
        with pytest.raises(ValueError, match="no string of the request"):
            method_spec(pool.FindMethodByName(f"lictor.paths.{file.service[0].name}.Do"))


def test_a_write_that_takes_a_stream_is_refused() -> None:
    file = descriptor_pb2.FileDescriptorProto(name="lictor/testing/v1/written.proto", package="lictor.testing.v1")
    file.dependency.extend(["google/protobuf/wrappers.proto", "lictor/common/v1/options.proto"])
    method = file.service.add(name="Written").method.add(
        name="Pour", input_type=".google.protobuf.StringValue", output_type=".google.protobuf.StringValue",
        client_streaming=True,
    )  # fmt: skip
    method.options.Extensions[options_pb2.rules].effect = options_pb2.Effect.RESTRICTING
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    with pytest.raises(ValueError, match="takes one message"):
        method_spec(pool.FindFileByName(file.name).services_by_name["Written"].methods_by_name["Pour"])


def test_a_missing_or_synchronous_handler_is_refused() -> None:
    class Synchronous(EchoServicer):
        # Wrong on purpose, in types too.
        def Read(self, request: object, context: object) -> StringValue:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
            return StringValue()

    for servicer in (object(), Synchronous()):
        with pytest.raises(ValueError, match="no async handler"):
            build_routes([ServiceBinding(ECHO, servicer)], [])


def test_a_service_bound_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="bound twice"):
        build_routes([ServiceBinding(ECHO, EchoServicer()), ServiceBinding(ECHO, EchoServicer())], [])


async def test_the_chain_is_composed_once_per_method_outermost_first() -> None:
    composed: list[tuple[str, str]] = []
    passed: list[str] = []

    def tracer(name: str) -> Middleware:
        def layer(spec: MethodSpec, inner: Endpoint) -> Endpoint:
            composed.append((name, spec.name))

            async def call(context: CallContext, body: Body) -> bytes | None:
                passed.append(name)
                return await inner(context, body)

            return call

        return layer

    routes = build_routes([ServiceBinding(ECHO, EchoServicer())], [tracer("outer"), tracer("inner")])
    route = routes[f"/{SERVICE}/Open"]
    for _ in range(2):
        raw = await route.call(context(Recording()), CreateLicenseRequest(display_name="Ada").SerializeToString())
        assert raw == StringValue(value="Ada").SerializeToString()
    assert passed == ["outer", "inner"] * 2
    assert composed.count(("outer", "Open")) == composed.count(("inner", "Open")) == 1


async def test_streamed_answers_leave_through_the_wire() -> None:
    wire = Recording()
    route = build_routes([ServiceBinding(ECHO, EchoServicer())], [])[f"/{SERVICE}/Expand"]
    assert await route.call(context(wire), CreateLicenseRequest(display_name="ab").SerializeToString()) is None
    assert [StringValue.FromString(raw).value for raw in wire.sent] == ["a", "b"]


def imports(module: str) -> set[str]:
    """The modules that a module of ours names in its import statements."""
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def test_what_another_transport_shares_imports_no_grpc() -> None:
    names = ("routes", "middleware", "status", "context", "codec", "wire", "admission", "auth", "deadlines")
    todo, seen, foreign = [f"shared.rpc.{name}" for name in names], set[str](), set[str]()
    while todo:
        module = todo.pop()
        seen.add(module)
        for name in imports(module):
            if name.startswith("shared."):
                todo += [] if name in seen else [name]
            else:
                foreign.add(name.partition(".")[0])
    assert "shared.observe.logging" in seen, "the walk follows imports"
    assert {name for name in foreign if name.startswith("grpc")} == set()
    assert "grpc" in imports("shared.rpc.grpcio"), "the walk would see it"
