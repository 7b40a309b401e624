"""The certificate that a process shows, whose certificates it asks for, and who a caller's certificate says it is."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from shared.crypto.private_files import open_to_others
from shared.observe.logging import get_logger

MIN_RSA_BITS: Final = 2048
CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")
_IDENTITY: Final = re.compile(r"[!#-+\--:<-\[\]-~]+")
"""Printable ASCII without space and without `"`, `,`, `;` and backslash, which Envoy passes on unescaped among its own."""

_log = get_logger(__name__)
_Fingerprint: TypeAlias = tuple[tuple[int, ...] | None, ...]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files; they are read again when they are replaced.

    Attributes:
        cert_file: The process's certificate, followed by its intermediates.
        key_file: The private key of it.
        client_ca_file: Authorities of callers. With it every caller must show a certificate of one of them, and the one
            URI among that certificate's names is who the caller is; None asks for no certificate.
    """

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """What the files hold, PEM."""

    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None
    expires: datetime = field(compare=False)
    """When the process's own certificate ends."""


class TlsError(ValueError):
    """Files that cannot be used.

    Attributes:
        faults: What is wrong, each with the name of the field of `TlsFiles`.
    """

    def __init__(self, faults: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{name}: {text}" for name, text in faults))
        self.faults = tuple(faults)


class _FileError(Exception):
    """One file cannot be used."""


def load(files: TlsFiles) -> TlsMaterial:
    """Reads the files.

    Raises:
        TlsError: One is missing, is not PEM, or is not what it should be; the key is not the certificate's, or open to
            others.
    """
    faults: list[tuple[str, str]] = []
    certificate, first, ca = b"", None, None
    try:
        certificate, first = _certificates(files.cert_file)
    except _FileError as error:
        faults.append(("cert_file", str(error)))
    key = b""
    try:
        key = _key(files.key_file, first)
    except _FileError as error:
        faults.append(("key_file", str(error)))
    if files.client_ca_file is not None:
        try:
            ca, _ = _certificates(files.client_ca_file)
        except _FileError as error:
            faults.append(("client_ca_file", str(error)))
    if faults or first is None:
        raise TlsError(faults)
    return TlsMaterial(certificate, key, ca, first.not_valid_after_utc)


def _read(path: Path) -> tuple[bytes, int]:
    """What a file holds, and its mode."""
    try:
        with path.open("rb") as file:
            return file.read(), os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise _FileError(f"{path}: {error.strerror}") from None


def _certificates(path: Path) -> tuple[bytes, x509.Certificate]:
    """A file of certificates, and the first of them."""
    pem, _ = _read(path)
    try:
        return pem, x509.load_pem_x509_certificates(pem)[0]
    except ValueError:
        raise _FileError(f"{path} holds no certificates in PEM, or one that is malformed") from None


def _key(path: Path, certificate: x509.Certificate | None) -> bytes:
    """The private key in a file, which must be the certificate's where that is known."""
    pem, mode = _read(path)
    if open_to_others(mode):
        raise _FileError(f"{path} is open to others: chmod 600 it")
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        raise _FileError(f"{path} is encrypted: there is nobody to ask for its password") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _FileError(f"{path} holds no private key in PEM") from None
    if not _common(key):
        raise _FileError(f"{path} must be an RSA key of {MIN_RSA_BITS} bits or more, or one on P-256, P-384 or P-521")
    if certificate is not None and _public(key.public_key()) != _public(certificate.public_key()):
        raise _FileError(f"{path} is not the key of the certificate")
    return pem


def _common(key: PrivateKeyTypes) -> bool:
    """Whether both transports can use the key."""
    if isinstance(key, RSAPrivateKey):
        return key.key_size >= MIN_RSA_BITS
    return isinstance(key, EllipticCurvePrivateKey) and key.curve.name in CURVES


def _public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


class TlsWatch:
    """Files that may be replaced while they are in use. Threads may share it.

    Args:
        files: The files.

    Raises:
        TlsError: They cannot be used as they are now.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._lock = Lock()
        self._seen = self._fingerprint()
        self.material = load(files)
        _log.info("TLS files read", expires=self.material.expires.isoformat())

    def renewed(self) -> TlsMaterial | None:
        """What the files hold, if that has changed since it was asked for last. One look at each file where it has not.

        Files that cannot be used leave things as they are: one line of the log says why.
        """
        with self._lock:
            now = self._fingerprint()
            if now == self._seen:
                return None
            try:
                material = load(self._files)
            except TlsError as error:
                if self._fingerprint() == now:  # else they are just being replaced
                    self._seen = now
                    _log.error("the new TLS files cannot be used; the old ones are kept", why=str(error))
                return None
            self._seen = now
            if material == self.material:
                return None
            self.material = material
            _log.info("TLS files taken up", expires=material.expires.isoformat())
            return material

    def _fingerprint(self) -> _Fingerprint:
        files = (self._files.cert_file, self._files.key_file, self._files.client_ca_file)
        return tuple(None if path is None else _look(path) for path in files)


def _look(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is replaced or written; None when it is not there."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_dev, seen.st_ino, seen.st_mtime_ns, seen.st_size, seen.st_mode


@lru_cache(maxsize=1024)
def certificate_uris(pem: bytes) -> tuple[str, ...]:
    """The URIs among the names of a certificate; none where they cannot be read."""
    try:
        names = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return ()
    return tuple(names.value.get_values_for_type(x509.UniformResourceIdentifier))


def peer_identity(uris: Sequence[str]) -> str:
    """Who a caller is, by the URIs among the names of its certificate: the one, if there is exactly one.

    Empty with none, with several (an SVID of SPIFFE has one), and with one that holds what no SPIFFE ID may hold and what
    could be taken for more than one: anything but printable ASCII, a space, `"`, `,`, `;` or a backslash.
    """
    return uris[0] if len(uris) == 1 and _IDENTITY.fullmatch(uris[0]) else ""
