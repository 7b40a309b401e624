"""The certificate that a process shows, and whose certificates it asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files; they are read again when they are replaced.

    Attributes:
        cert_file: The process's certificate, followed by its intermediates.
        key_file: The private key of it.
        client_ca_file: Authorities of callers. With it every caller must show a certificate of one of them, and the first
            URI among that certificate's names is who the caller is; None asks for no certificate.
    """

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None
