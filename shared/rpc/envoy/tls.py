"""TLS as Envoy is told of it. Certificates come from their files, which may be replaced while Envoy runs.

Envoy could watch the files itself, but it notices nothing but renames, takes half of a replacement for the whole, and words
its complaints its own way. So `TlsWatch` looks after them, as on the other transport, and tells Envoy when to read them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shared.observe.logging import get_logger
from shared.rpc.tls import TlsFiles, TlsWatch

TYPES: Final = "type.googleapis.com/envoy.extensions"
LOOK_S: Final = 1.0
"""How often the files are looked at."""
HANDSHAKE_WITHIN: Final = "10s"
_OWN: Final = "own"
_CALLERS: Final = "callers"
_SIGNS: Final = "renewed"
"""A folder of ours that Envoy watches: a file that is renamed within it tells Envoy to read the certificates again."""


_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class EnvoyTls:
    """What a listener needs to speak TLS.

    Attributes:
        folder: Where Envoy's files are, which nobody else may read.
        files: The certificate and its key, and who may call.
    """

    folder: Path
    files: TlsFiles

    def chain(self, protocols: Sequence[str]) -> dict[str, Any]:
        """The part of a filter chain that takes TLS and offers these protocols."""
        common: dict[str, Any] = {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "alpn_protocols": list(protocols),
            "tls_certificate_sds_secret_configs": [self._from_file(_OWN)],
        }
        context: dict[str, Any] = {
            "@type": f"{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": common,
        }
        if self.files.client_ca_file is not None:
            common["validation_context_sds_secret_config"] = self._from_file(_CALLERS)
            context["require_client_certificate"] = True
            # A resumed session shows no certificate: it would admit one that has expired since, or whose authority is gone.
            context["disable_stateless_session_resumption"] = True
            context["disable_stateful_session_resumption"] = True
        return {
            "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context},
            "transport_socket_connect_timeout": HANDSHAKE_WITHIN,
        }

    def write(self) -> None:
        """Writes which files hold what, for Envoy to read."""
        signs = self.folder / _SIGNS
        signs.mkdir(0o700)
        watched = {"watched_directory": {"path": str(signs)}}
        own = {
            "certificate_chain": {"filename": str(self.files.cert_file.absolute())},
            "private_key": {"filename": str(self.files.key_file.absolute())},
            **watched,
        }
        self._write_secret(_OWN, {"tls_certificate": own})
        if self.files.client_ca_file is not None:
            callers = {"trusted_ca": {"filename": str(self.files.client_ca_file.absolute())}, **watched}
            self._write_secret(_CALLERS, {"validation_context": callers})

    def _from_file(self, name: str) -> dict[str, Any]:
        source = {"path_config_source": {"path": str(self._path(name))}, "resource_api_version": "V3"}
        return {"name": name, "sds_config": source}

    def _write_secret(self, name: str, secret: dict[str, Any]) -> None:
        kind = f"{TYPES}.transport_sockets.tls.v3.Secret"
        private_file(self._path(name), {"resources": [{"@type": kind, "name": name, **secret}]})

    def _path(self, name: str) -> Path:
        return self.folder / f"tls-{name}.json"


def private_file(path: Path, content: dict[str, Any]) -> None:
    """Writes what nobody else may read."""
    path.touch(0o600)
    path.write_text(json.dumps(content, indent=1))


def forwarded_certificate(tls: EnvoyTls | None) -> dict[str, Any]:
    """What a listener's HTTP connections say of the caller's certificate: its URIs where it must show one, else nothing.

    A header of that name from the caller is taken away in either case.
    """
    if tls is None or tls.files.client_ca_file is None:
        return {"forward_client_cert_details": "SANITIZE"}
    return {"forward_client_cert_details": "SANITIZE_SET", "set_current_client_cert_details": {"uri": True}}


@asynccontextmanager
async def renewing(folder: Path, files: TlsFiles | None) -> AsyncGenerator[None]:
    """Tells the Envoy of `folder` when its certificates were replaced, while the block runs.

    Raises:
        TlsError: The files cannot be used as they are when it begins.
    """
    if files is None:
        yield
        return
    looking = asyncio.create_task(_look(folder / _SIGNS, TlsWatch(files)), name="certificates")
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.wait({looking})


async def _look(signs: Path, watch: TlsWatch) -> None:
    untold = False
    while True:
        await asyncio.sleep(LOOK_S)
        renewed = await asyncio.to_thread(watch.renewed) is not None
        if not renewed and not untold:
            continue
        try:
            (signs / "next").touch(0o600)
            (signs / "next").rename(signs / "last")
            untold = False
        except OSError as error:
            if not untold:
                _log.error("Envoy cannot be told of its new TLS files yet", why=str(error))
            untold = True
