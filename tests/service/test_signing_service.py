"""Machine files by SigningService, as the machine service will have them: over a channel, and inside one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf.json_format import MessageToJson
from lictor import FileNotDecrypted, FileOfOtherMachine, verify_machine_file
from lictor.license.v1.signing_service_pb2 import SignFileRequest, SignFileResponse

from services.license import app as license_app
from services.machine.license_calls import license_calls
from services.machine.settings import Settings as MachineSettings
from shared.clock import SystemClock
from shared.crypto import root_secret
from shared.crypto.service_tokens import ServiceCall, ServiceTokens
from shared.embedded.postgres import EmbeddedPostgres
from shared.errors import DomainError, Reason
from shared.rpc.client import ChannelCaller, InsideCaller, ServiceCaller
from shared.rpc.context import CallContext
from shared.rpc.runtime import ServeSettings, serve
from shared.settings import SettingsError
from shared.tenancy import Mode, Principal, PrincipalKind
from tests.helpers.builders import METHODS, open_shop, path_of, refused_by, rules_of, unchanged, uuid
from tests.helpers.echo import NoWire, as_is
from tests.helpers.suite import Suite, World, bearer, running_suite

METHOD = "/lictor.license.v1.SigningService/SignFile"
FINGERPRINT = "6f1ed002ab5595859014ebf0951522d9"
FREE = "127.0.0.1:0"


def tokens_of(suite: Suite) -> ServiceTokens:
    return ServiceTokens(root_secret.load(suite.settings.root_secret_file), SystemClock())


def served_call(world: World, mode: Mode = Mode.TEST, time_left_s: float = 10.0) -> CallContext:
    """A call of a customer of the machine service, in the course of which it asks for a signature."""
    trace = (("traceparent", "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"),)
    context = CallContext(
        method="/x/Y", service="x", wire=NoWire(), metadata=trace, time_left_s=time_left_s
    )  # fmt: skip
    context.set_principal(Principal(PrincipalKind.SECRET_KEY, world.account_id, mode, "key_1", frozenset(), None))
    return context


def wanted(license_id: str, **more: Any) -> SignFileRequest:
    said: dict[str, Any] = {
        "request_id": uuid(), "license_id": license_id, "machine_id": "mach_1", "fingerprint": FINGERPRINT, "seq": 1, **more
    }  # fmt: skip
    return SignFileRequest(**said)


async def signed(caller: ServiceCaller, request: SignFileRequest, context: CallContext) -> SignFileResponse:
    return await caller.call(METHOD, request, SignFileResponse, context)


@pytest.fixture(name="caller")
def _caller(suite: Suite) -> ServiceCaller:
    return ChannelCaller(suite.channel, tokens_of(suite), "machine")


async def test_a_machine_file_is_signed_and_verifies(world: World, caller: ServiceCaller) -> None:
    issued = await (await open_shop(world.test)).issue()
    request = wanted(issued.license.license_id, seq=41)
    request.ttl.FromTimedelta(timedelta(days=2))
    made = await signed(caller, request, served_call(world))
    keys = MessageToJson(await world.test.signing_keys.public(made.key_set_id))
    found = verify_machine_file(made.file, keys=keys, state=None, fingerprint=FINGERPRINT)
    assert (found.kind, found.machine_id, found.seq) == ("MACHINE", "mach_1", 41)
    assert (found.license_id, found.file_id) == (issued.license.license_id, made.file_id)
    assert found.expires_at - found.server_time == timedelta(days=2)
    assert (found.revocation_epoch, made.revocation_epoch) == (0, 0)
    with pytest.raises(FileOfOtherMachine):
        verify_machine_file(made.file, keys=keys, state=None, fingerprint="another machine")
    locked = await signed(caller, wanted(issued.license.license_id, license_key=issued.key), served_call(world))
    given: dict[str, Any] = {"keys": keys, "state": None, "license_key": issued.key}
    assert verify_machine_file(locked.file, fingerprint=FINGERPRINT, **given).machine_id == "mach_1"
    with pytest.raises(FileNotDecrypted):
        verify_machine_file(locked.file, fingerprint="another machine", **given)


async def test_a_license_is_read_again_in_the_tenant_of_the_token(
    suite: Suite, world: World, caller: ServiceCaller
) -> None:
    shop = await open_shop(world.test)
    license_id = (await shop.issue()).license.license_id
    async with suite.world() as stranger:
        for context in (served_call(world, Mode.LIVE), served_call(stranger)):
            with pytest.raises(DomainError) as refused:
                await signed(caller, wanted(license_id), context)
            assert refused.value.reason is Reason.LICENSE_NOT_FOUND
            assert refused.value.metadata == {"id": license_id}
    await world.test.licenses.suspend(license_id)
    with pytest.raises(DomainError) as refused:
        await signed(caller, wanted(license_id), served_call(world))
    assert refused.value.reason is Reason.STATE_TRANSITION_INVALID
    assert refused.value.metadata == {"from": "suspended", "action": "check_out"}


async def test_refusals_come_back_as_they_were_raised(suite: Suite, world: World, caller: ServiceCaller) -> None:
    license_id = (await (await open_shop(world.test)).issue()).license.license_id
    request = wanted(license_id, seq=0, fingerprint="", machine_id="")
    async with unchanged(suite, world):
        with pytest.raises(DomainError) as refused:
            await signed(caller, request, served_call(world))
    assert {(v.field, v.reason) for v in refused.value.violations} == {
        ("seq", "OUT_OF_RANGE"), ("fingerprint", "REQUIRED"), ("machine_id", "REQUIRED"),
    }  # fmt: skip


async def test_a_retry_gets_the_same_file(world: World, caller: ServiceCaller) -> None:
    request = wanted((await (await open_shop(world.test)).issue()).license.license_id)
    first = await signed(caller, request, served_call(world))
    assert (await signed(caller, request, served_call(world))).file == first.file


async def test_no_credential_of_a_client_reaches_it(suite: Suite, world: World) -> None:
    license_id = (await (await open_shop(world.test)).issue()).license.license_id
    body = wanted(license_id).SerializeToString()
    call = suite.channel.unary_unary(METHOD, as_is, as_is)
    token = tokens_of(suite).mint(ServiceCall("machine", "license", world.tenant(), METHOD))
    async with unchanged(suite, world):
        for metadata in (
            (),
            bearer(world.test_key),
            bearer(suite.operator_key),
            bearer("x"),
            bearer(token),
            (("authorization", f"Service {token}"), ("authorization", f"Service {token}")),
            (("authorization", f"Service {token}x"),),
        ):
            found = await refused_by(call(body, metadata=grpc.aio.Metadata(*metadata), timeout=10))
            assert found.reason == "CREDENTIALS_INVALID"
    assert await call(body, metadata=grpc.aio.Metadata(("authorization", f"Service {token}")), timeout=10)


async def test_a_token_of_a_service_reaches_nothing_else(suite: Suite, world: World) -> None:
    """Not even one that was made for the method: only the methods of the table take any."""
    async with unchanged(suite, world):
        for method in METHODS.values():
            path = path_of(method)
            token = tokens_of(suite).mint(ServiceCall("machine", "license", world.tenant(), path))
            if rules_of(method).anonymous or rules_of(method).endless:
                continue  # the one looks at no credential, and the other is a stream
            call = suite.channel.unary_unary(path, as_is, as_is)
            metadata = grpc.aio.Metadata(("authorization", f"Service {token}"))
            assert (await refused_by(call(b"", metadata=metadata, timeout=10))).reason == "CREDENTIALS_INVALID", path


async def test_too_little_time_is_refused_before_anything_is_sent(world: World, caller: ServiceCaller) -> None:
    with pytest.raises(DomainError) as refused:
        await signed(caller, wanted("lic_1"), served_call(world, time_left_s=0.02))
    assert refused.value.reason is Reason.DEADLINE_TOO_SHORT


async def test_a_service_that_is_away_is_asked_again_and_then_given_up(suite: Suite, world: World) -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as nowhere:
        caller = ChannelCaller(nowhere, tokens_of(suite), "machine")
        with pytest.raises(DomainError) as refused:
            await signed(caller, wanted("lic_1"), served_call(world, time_left_s=5.0))
    assert refused.value.reason is Reason.RECORD_UNREACHABLE
    assert refused.value.retry_after_ms


async def test_a_fault_between_services_is_not_told_as_the_callers(suite: Suite, world: World, caller: Any) -> None:
    wrong = ChannelCaller(suite.channel, tokens_of(suite), "webhook")
    with pytest.raises(RuntimeError, match="webhook"):
        await signed(wrong, wanted("lic_1"), served_call(world))


@pytest_asyncio.fixture(loop_scope="session", name="inside")
async def _inside(postgres: EmbeddedPostgres, tmp_path: Path) -> AsyncGenerator[tuple[Suite, InsideCaller]]:
    """A process whose own routes are called, beside a suite that has the accounts."""
    async with running_suite(postgres, tmp_path) as suite:
        caller = InsideCaller(tokens_of(suite), "machine")
        async with license_app.build(suite.settings, SystemClock()) as app:
            ready, stop = asyncio.get_running_loop().create_future(), asyncio.Event()
            settings = ServeSettings(FREE, FREE, FREE, lame_duck_s=0.0, drain_s=5.0)
            task = asyncio.create_task(
                serve(replace(app, inside=[caller]), settings, SystemClock(), on_ready=ready.set_result, stop=stop)
            )
            await ready
            yield suite, caller
            stop.set()
            await task


async def test_calls_inside_a_process_go_through_all_that_is_around_its_routes(
    inside: tuple[Suite, InsideCaller],
) -> None:
    suite, caller = inside
    async with suite.world() as world:
        license_id = (await (await open_shop(world.test)).issue()).license.license_id
        context = served_call(world)
        made = await signed(caller, wanted(license_id), context)
        keys = MessageToJson(await world.test.signing_keys.public(made.key_set_id))
        assert verify_machine_file(made.file, keys=keys, state=None, fingerprint=FINGERPRINT)
        assert context.principal.kind is PrincipalKind.SECRET_KEY, "the call that is served is as it was"
        many = await asyncio.gather(
            *(signed(caller, wanted(license_id, seq=n), served_call(world)) for n in range(2, 10))
        )
        assert len({one.file_id for one in many}) == 8
        with pytest.raises(DomainError) as refused:
            await signed(caller, wanted("lic_nope"), served_call(world))
        assert refused.value.reason is Reason.LICENSE_NOT_FOUND
        stranger = InsideCaller(tokens_of(suite), "entitlement")
        stranger.serve(caller._routes)  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(RuntimeError, match="entitlement"):
            await signed(stranger, wanted(license_id), served_call(world))


async def test_a_machine_process_of_its_own_calls_the_process_that_it_is_told(suite: Suite, world: World) -> None:
    """With its settings alone; and a certificate's file that is not there keeps it from starting."""
    license_id = (await (await open_shop(world.test)).issue()).license.license_id
    own: dict[str, Any] = suite.settings.model_dump(include=set(MachineSettings.model_fields))
    own["license_addr"] = suite.bound.api_addr
    async with license_calls(MachineSettings(**own), tokens_of(suite)) as caller:
        assert (await signed(caller, wanted(license_id), served_call(world))).file_id
    with pytest.raises(SettingsError, match="/nowhere"):
        async with license_calls(MachineSettings(**own, license_ca_file=Path("/nowhere")), tokens_of(suite)):
            pass
