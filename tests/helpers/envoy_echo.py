"""The echo service of `tests.helpers.echo` in a process of its own: as a program it serves over what `LICTOR_TRANSPORT`
says, by itself or by starting Envoy; as a module Envoy loads it.

A request says what its handler does: `sleep:0.5`, `sleep:0.5:answer`, `fail`, `metadata`, `identity`, `peer`; anything else
is echoed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Final

from lictor.license.v1.license_service_pb2 import CreateLicenseRequest

from shared.clock import SystemClock
from shared.errors import DomainError, Reason
from shared.observe.logging import configure
from shared.rpc.addresses import shared_port
from shared.rpc.child import Child, ChildError
from shared.rpc.context import CallContext
from shared.rpc.envoy.bootstrap import EnvoySettings
from shared.rpc.envoy.host import EnvoyApplication
from shared.rpc.envoy.parent import envoy, run_envoy
from shared.rpc.routes import ServiceBinding
from shared.rpc.runtime import App, GrpcioHost, Host, ServeSettings, serve
from shared.rpc.supervisor import GroupSettings, Supervisor, worker
from shared.rpc.tls import TlsFiles
from shared.rpc.worker import run_worker
from tests.helpers.echo import ECHO, EchoAuthenticator, EchoServicer

LEAVE_WITHIN_S: Final = 20.0


async def behave(request: CreateLicenseRequest, context: CallContext) -> str:
    verb, _, value = request.display_name.partition(":")
    match verb:
        case "sleep":
            seconds, _, answer = value.partition(":")
            await asyncio.sleep(float(seconds))
            return answer or "slept"
        case "fail":
            raise DomainError(Reason.LICENSE_NOT_FOUND, "no 100% näive license", metadata={"id": "lic_1"})
        case "metadata":
            return "\n".join(f"{key}={value!r}" for key, value in context.invocation_metadata())
        case "identity" | "peer":
            return context.peer_identity() if verb == "identity" else context.peer()
        case _:
            return request.display_name


async def _serve(host: Host) -> None:
    configure(json=False, level="info")
    if _option("CRASH", ""):
        os._exit(3)
    if _option("FAIL", ""):
        raise OSError(_option("FAIL", ""))
    servicer = EchoServicer()
    servicer.behaviour = behave
    api, ops, ops_grpc = (os.environ[f"LICTOR_{name}_ADDR"] for name in ("API", "OPS", "OPS_GRPC"))
    echo = App([ServiceBinding(ECHO, servicer)], EchoAuthenticator(), lambda: True)
    lame_duck_s, drain_s = float(_option("LAME_DUCK_S", "0")), float(_option("DRAIN_S", "1"))
    settings = ServeSettings(
        api, ops, ops_grpc, account_share_percent=100, lame_duck_s=lame_duck_s, drain_s=drain_s, tls=_tls()
    )
    await serve(echo, settings, SystemClock(), host=host)


def _option(name: str, default: str) -> str:
    return os.environ.get(f"LICTOR_{name}", default)


def _tls() -> TlsFiles | None:
    cert, key, ca = (os.environ.get(f"LICTOR_TLS_{name}_FILE") for name in ("CERT", "KEY", "CLIENT_CA"))
    return TlsFiles(Path(cert), Path(key), Path(ca) if ca else None) if cert and key else None


def _envoy_settings() -> EnvoySettings:
    return EnvoySettings(
        api_addr=os.environ["LICTOR_API_ADDR"],
        application="tests.helpers.envoy_echo:app",
        json_logs=False,
        tls=_tls(),
        trusted_proxies=int(_option("TRUSTED_PROXIES", "0")),
    )


async def _supervise(envoy_too: bool, processes: int) -> None:
    with shared_port(os.environ["LICTOR_API_ADDR"]) as api:
        inside = {"LICTOR_API_ADDR": api, "LICTOR_OPS_ADDR": "127.0.0.1:0", "LICTOR_OPS_GRPC_ADDR": "127.0.0.1:0"}

        def open_child() -> AbstractAsyncContextManager[Child]:
            if envoy_too:
                return envoy(replace(_envoy_settings(), api_addr=api, share_port=True), LEAVE_WITHIN_S, inside)
            command = (sys.executable, "-m", "tests.helpers.envoy_echo", "worker")
            return worker(command, inside, LEAVE_WITHIN_S)

        group = GroupSettings(processes, os.environ["LICTOR_OPS_ADDR"], os.environ["LICTOR_OPS_GRPC_ADDR"])
        await Supervisor(open_child, group, float(_option("HUNG_AFTER_S", "15"))).run()


async def _main(arguments: list[str]) -> None:
    configure(json=False, level="info")
    transport, processes = _option("TRANSPORT", "envoy"), int(_option("PROCESSES", "1"))
    if arguments == ["worker"]:
        await run_worker(_serve, (OSError,))
    elif processes > 1:
        await _supervise(transport == "envoy", processes)
    elif transport == "envoy":
        await run_envoy(_envoy_settings(), LEAVE_WITHIN_S)
    else:
        await _serve(GrpcioHost())


app: Final = EnvoyApplication(_serve, (OSError,))

if __name__ == "__main__":
    try:
        asyncio.run(_main(sys.argv[1:]))
    except (ChildError, OSError) as failed:
        sys.exit(str(failed))
