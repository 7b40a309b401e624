"""Options that several commands of `lictor` have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

StateDir = Annotated[Path, typer.Option(envvar="LICTOR_STATE_DIR", help="Where data, secrets and keys are kept.")]
Endpoint = Annotated[str, typer.Option(envvar="LICTOR_ENDPOINT", help="host:port of the services.")]
ApiKey = Annotated[
    str | None,
    typer.Option(envvar="LICTOR_API_KEY", help="Default: the one kept in the state directory; with --cert-file, none."),
]
CaFile = Annotated[
    Path | None, typer.Option(envvar="LICTOR_TLS_CA_FILE", help="Authorities of the server's certificate, PEM.")
]
CertFile = Annotated[
    Path | None, typer.Option(envvar="LICTOR_CLIENT_CERT_FILE", help="A certificate to show the server, PEM.")
]
KeyFile = Annotated[
    Path | None, typer.Option(envvar="LICTOR_CLIENT_KEY_FILE", help="The private key of --cert-file, PEM.")
]

DEFAULT_STATE: Final = Path(".lictor")
