"""Certificates for tests: authorities, and what they sign."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)
HERE: tuple[x509.GeneralName, ...] = (
    x509.DNSName("localhost"),
    x509.IPAddress(ip_address("127.0.0.1")),
    x509.UniformResourceIdentifier("spiffe://example.org/server"),
)
"""The names of a server on this machine, which is a workload itself."""


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Writes both, each by a rename over what was there. Returns where they are."""
        cert_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
        for path, content in ((cert_file, self.certificate), (key_file, self.key)):
            fresh = path.with_suffix(".fresh")
            fresh.unlink(missing_ok=True)
            fresh.touch(0o600)
            fresh.write_bytes(content)
            fresh.rename(path)
        return cert_file, key_file


class Authority:
    """A certificate authority."""

    def __init__(self, name: str = "authority") -> None:
        self._name = _named(name)
        self._key = generate_private_key(SECP256R1())
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        built = (
            self._begun(self._name, self._key, 30 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, SHA256())
        )
        self.certificate = built.public_bytes(Encoding.PEM)

    def write(self, path: Path) -> Path:
        path.write_bytes(self.certificate)
        return path

    def server(self, *, common_name: str = "server", lasts: timedelta = DAY) -> Pair:
        """For 127.0.0.1 and localhost."""
        return self._pair(common_name, HERE, lasts)

    def client(self, *uris: str, lasts: timedelta = DAY) -> Pair:
        """With these URIs among its names."""
        return self._pair("client", [x509.UniformResourceIdentifier(uri) for uri in uris], lasts)

    def _pair(self, common_name: str, names: Sequence[x509.GeneralName], lasts: timedelta) -> Pair:
        key = generate_private_key(SECP256R1())
        building = self._begun(_named(common_name), key, lasts)
        if names:
            building = building.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = building.sign(self._key, SHA256()).public_bytes(Encoding.PEM)
        return Pair(certificate, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def _begun(self, name: x509.Name, key: EllipticCurvePrivateKey, lasts: timedelta) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 30 * DAY)
            .not_valid_after(now + lasts)
        )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
