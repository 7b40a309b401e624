"""`lictor call METHOD [JSON]`: one unary call by name, from the contract's descriptors alone."""

from __future__ import annotations

import difflib
import importlib.resources
import os
import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from google.protobuf import descriptor_pb2, json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from lictor import LictorError, TlsConfig
from lictor._core.config import ClientConfig
from lictor._core.prepared import Prepared
from lictor._core.sync_client import SyncRunner
from lictor.common.v1 import options_pb2

DEFAULT_STATE: Final = Path(".lictor")
DEMO_BODY: Final = '{"license": {"licenseKey": "DEMO-0000-0000-0000-0000"}}'
TOOL_TIMEOUT_S: Final = 10


class CallUsageError(Exception):
    """The call could not be made; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC of the contract."""

    path: str
    request: type[Message]
    response: type[Message]
    unary: bool
    takes_request_id: bool
    retry_safe: bool
    hot: bool

    @property
    def dotted(self) -> str:
        return self.path.strip("/").replace("/", ".")


@cache
def methods() -> Mapping[str, Method]:
    """Every RPC of the contract by its full path."""
    files = descriptor_pb2.FileDescriptorSet.FromString(
        (importlib.resources.files("lictor") / "descriptors.binpb").read_bytes()
    )
    pool = DescriptorPool()
    for file in files.file:
        pool.Add(file)  # pyright: ignore[reportUnknownMemberType]
    found: dict[str, Method] = {}
    for file in files.file:
        for service in file.service:
            descriptor = pool.FindServiceByName(f"{file.package}.{service.name}")
            for rpc in descriptor.methods:
                if rpc.GetOptions().Extensions[options_pb2.rules].internal:
                    continue  # no client can call it
                found[f"/{descriptor.full_name}/{rpc.name}"] = _method(f"/{descriptor.full_name}/{rpc.name}", rpc)
    return found


def _method(path: str, rpc: MethodDescriptor) -> Method:
    shape = descriptor_pb2.MethodDescriptorProto()
    rpc.CopyToProto(shape)
    rules = shape.options.Extensions[options_pb2.rules]
    return Method(
        path=path,
        request=GetMessageClass(rpc.input_type),
        response=GetMessageClass(rpc.output_type),
        unary=not (shape.client_streaming or shape.server_streaming),
        takes_request_id=rules.idempotent,
        # A hot call that writes is a heartbeat, and again one when it is repeated.
        retry_safe=rules.idempotent or rules.hot or rules.effect == options_pb2.Effect.KIND_UNSPECIFIED,
        hot=rules.hot,
    )


def find_method(name: str) -> Method:
    """The method that `name` means: `GetLicense`, `license.v1.LicenseService/GetLicense` or the full path."""
    wanted = name.strip("/").replace("/", ".")
    known = methods().values()
    hits = [method for method in known if method.dotted == wanted or method.dotted.endswith("." + wanted)]
    if len(hits) > 1:
        raise CallUsageError(f"{name} is ambiguous; say which:\n" + _lines(method.path for method in hits))
    if not hits:
        raise CallUsageError(_unknown(name, wanted))
    if not hits[0].unary:
        raise CallUsageError(f"{name} is a stream; `lictor call` makes unary calls only")
    return hits[0]


def _unknown(name: str, wanted: str) -> str:
    by_short = {method.dotted.rpartition(".")[2].lower(): method for method in methods().values()}
    short = wanted.rpartition(".")[2].lower()
    near = difflib.get_close_matches(short, by_short, n=5, cutoff=0.5)
    near += sorted(key for key in by_short if short and short in key and key not in near)
    if near:
        return f"no method is called {name}; near it:\n" + _lines(by_short[key].path for key in near)
    return f"no method is called {name}; there are:\n" + _lines(methods())


def _lines(paths: Iterable[str]) -> str:
    return "\n".join(f"  {path.strip('/')}" for path in paths)


def _request(method: Method, body: str) -> Message:
    request = method.request()
    try:
        json_format.Parse(body or "{}", request)
    except json_format.ParseError as fault:
        raise CallUsageError(f"the body is not a {request.DESCRIPTOR.full_name}: {fault}") from fault
    # Without an id of its own a write could not be tried again when its answer is lost.
    if method.takes_request_id and not getattr(request, "request_id", ""):
        setattr(request, "request_id", str(uuid.uuid4()))  # noqa: B010 - the message class is made at run time
    return request


def tls_of(ca_file: Path | None, cert_file: Path | None, key_file: Path | None) -> TlsConfig | None:
    """TLS where any of its files is named, else none. Raises CallUsageError for half a client certificate."""
    if ca_file is None and cert_file is None and key_file is None:
        return None
    try:
        return TlsConfig(ca_file, cert_file, key_file)
    except ValueError as fault:
        raise CallUsageError(str(fault)) from fault


def invoke(method: str, body: str, *, endpoint: str, api_key: str | None, tls: TlsConfig | None = None) -> Message:
    """Makes the call. Raises CallUsageError for what cannot be sent, LictorError for a call that failed."""
    found = find_method(method)
    request = _request(found, body)
    try:
        runner = SyncRunner(ClientConfig(endpoint=endpoint, api_key=api_key or "", tls=tls))
    except (ValueError, OSError) as fault:
        raise CallUsageError(str(fault)) from fault
    try:
        return runner.call(Prepared(found.path, request, found.response.FromString, found.retry_safe, found.hot))
    finally:
        runner.close()


def render_answer(answer: Message) -> str:
    """The answer as JSON. Fields at their zero are shown: `"valid": false` is an answer."""
    return json_format.MessageToJson(answer, always_print_fields_with_no_presence=True, ensure_ascii=False)


def render_error(error: LictorError) -> str:
    """A block to read: code and reason, message, each bad field, metadata, and the server's id of the call."""
    lines = [f"{error.code} {error.reason}".strip(), f"  {error.message}"]
    lines += [f"  {bad.field or 'request'}: {bad.reason} {bad.description}".rstrip() for bad in error.violations]
    lines += [f"  {key} = {value}" for key, value in sorted(error.metadata.items())]
    if error.retry_after_s is not None:
        lines.append(f"  try again after {error.retry_after_s:g} s")
    if error.request_id:
        lines.append(f"  request id {error.request_id}")
    return "\n".join(lines)


def call(method: str, body: str, *, endpoint: str, api_key: str | None, tls: TlsConfig | None = None) -> int:
    """Makes one call and prints its JSON answer; `-` reads the body from standard input. 1 when there is no answer."""
    text = sys.stdin.read() if body == "-" else body
    try:
        answer = invoke(method, text, endpoint=endpoint, api_key=api_key, tls=tls)
    except LictorError as error:
        sys.stderr.write(render_error(error) + "\n")
        return 1
    except CallUsageError as refusal:
        sys.stderr.write(f"{refusal}\n")
        return 1
    sys.stdout.write(render_answer(answer) + "\n")
    return 0


def self_check(endpoint: str, api_key: str, *, state_dir: Path = DEFAULT_STATE) -> list[str]:
    """Runs the lines that a newcomer can copy, and returns those that worked. Blocks: not for a loop's thread."""
    program = _program()
    options = "" if state_dir.absolute() == DEFAULT_STATE.absolute() else f"--state-dir {shlex.quote(str(state_dir))} "
    worked: list[str] = []
    for line, method, body in (
        (f"{program} call {options}WhoAmI", "WhoAmI", "{}"),
        (f"{program} call {options}ValidateLicense '{DEMO_BODY}'", "ValidateLicense", DEMO_BODY),
    ):
        try:
            invoke(method, body, endpoint=endpoint, api_key=api_key)
        except (LictorError, CallUsageError):
            continue
        worked.append(line)
    if grpcurl := shutil.which("grpcurl"):
        # grpcurl reads the key from the environment, so it shows in no process list.
        arguments = ["-plaintext", "-expand-headers", "-H", "authorization: Bearer ${LICTOR_API_KEY}", endpoint]
        target = "lictor.account.v1.AccountService/WhoAmI"
        if _runs([grpcurl, *arguments, target], api_key):
            worked.append("grpcurl " + " ".join(f"'{part}'" if " " in part else part for part in [*arguments, target]))
    return worked


def curl_lines(endpoint: str, header: Path) -> list[str]:
    """The lines for JSON over HTTP that worked; none where there is no curl.

    Args:
        endpoint: `host:port`.
        header: A file with the header line that authorizes; a key in an argument would show in the process list.
    """
    if shutil.which("curl") is None:
        return []
    file = shlex.quote(os.path.relpath(header) if header.is_relative_to(Path.cwd()) else str(header))
    lines = (
        f"curl -H @{file} http://{endpoint}/v1/whoami",
        f"curl -H @{file} http://{endpoint}/v1/licenses:validate -d '{DEMO_BODY}'",
    )
    return [line for line in lines if _runs(["sh", "-c", f"{line} --fail --silent"])]


def _program() -> str:
    """How this program is called from here: by name where the shell would find it, else by its path."""
    own = Path(sys.argv[0]).absolute()
    found = shutil.which("lictor")
    if found is not None and Path(found).absolute() == own:
        return "lictor"
    return shlex.quote(os.path.relpath(own) if own.is_relative_to(Path.cwd()) else str(own))


def _runs(command: list[str], api_key: str = "") -> bool:
    try:
        done = subprocess.run(  # noqa: S603 - fixed commands; nothing in them comes from outside
            command,
            env={**os.environ, **({"LICTOR_API_KEY": api_key} if api_key else {})},
            check=False,
            capture_output=True,
            timeout=TOOL_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
