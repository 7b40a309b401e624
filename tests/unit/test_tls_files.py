"""Which TLS files are taken, when they count as replaced, and which names of a certificate are somebody."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from services.tls import checked_tls, named_tls, open_addresses
from shared.rpc.tls import TlsError, TlsFiles, TlsWatch, certificate_uris, load, peer_identity
from shared.settings import ProcessSettings, SettingsError, Transport
from tests.helpers.certificates import Authority, Pair

PKCS8 = PrivateFormat.PKCS8


@pytest.fixture(name="authority", scope="module")
def _authority() -> Authority:
    return Authority()


@pytest.fixture(name="pair", scope="module")
def _pair(authority: Authority) -> Pair:
    return authority.server()


@pytest.fixture(name="files")
def _files(authority: Authority, pair: Pair, tmp_path: Path) -> TlsFiles:
    return TlsFiles(*pair.write(tmp_path, "server"), authority.write(tmp_path / "ca.pem"))


def settings(files: TlsFiles | None = None, **more: object) -> ProcessSettings:
    named = {} if files is None else {f"tls_{name}": getattr(files, name) for name in TlsFiles.__slots__}
    return ProcessSettings.model_validate(
        {"transport": Transport.GRPCIO, "postgres_dsn": "postgresql:///lictor", "root_secret_file": "secret"}
        | named
        | more
    )


def test_good_files_are_read(files: TlsFiles, pair: Pair, authority: Authority) -> None:
    found = load(files)
    assert (found.certificate, found.key, found.client_ca) == (pair.certificate, pair.key, authority.certificate)
    assert pair.key.decode() not in repr(found)
    assert checked_tls(settings(files)) == files


def locked(pair: Pair) -> bytes:
    key = load_pem_private_key(pair.key, None)
    return key.private_bytes(Encoding.PEM, PKCS8, BestAvailableEncryption(b"password"))


def other_key(key: Ed25519PrivateKey | EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PKCS8, NoEncryption())


FAULTS: dict[str, tuple[str, Callable[[Path, Pair], object], str]] = {
    "no certificate": ("cert_file", lambda path, _: path.unlink(), "No such file or directory"),
    "no key": ("key_file", lambda path, _: path.unlink(), "No such file or directory"),
    "a folder of authorities": ("client_ca_file", lambda path, _: (path.unlink(), path.mkdir()), "directory"),
    "an empty certificate": ("cert_file", lambda path, _: path.write_bytes(b""), "no certificates in PEM"),
    "a key for a certificate": ("cert_file", lambda path, pair: path.write_bytes(pair.key), "no certificates in PEM"),
    "half a certificate": ("cert_file", lambda path, pair: path.write_bytes(pair.certificate[:300]), "no certificates"),
    "no authority": ("client_ca_file", lambda path, _: path.write_bytes(b""), "no certificates in PEM"),
    "a certificate for a key": ("key_file", lambda path, pair: path.write_bytes(pair.certificate), "no private key"),
    "another key": ("key_file", lambda path, _: path.write_bytes(Authority().server().key), "not the key of the"),
    "a key with a password": ("key_file", lambda path, pair: path.write_bytes(locked(pair)), "is encrypted"),
    "a key that all may read": ("key_file", lambda path, _: path.chmod(0o644), "open to others: chmod 600"),
    "a key that the group may write": ("key_file", lambda path, _: path.chmod(0o660), "open to others: chmod 600"),
    "an Ed25519 key": (
        "key_file",
        lambda path, _: path.write_bytes(other_key(Ed25519PrivateKey.generate())),
        "must be an RSA key of 2048 bits",
    ),
    "a rare curve": (
        "key_file",
        lambda path, _: path.write_bytes(other_key(generate_private_key(SECP256K1()))),
        "must be an RSA key of 2048 bits",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_files_that_are_refused(case: str, files: TlsFiles, pair: Pair) -> None:
    name, spoil, words = FAULTS[case]
    path: Path = getattr(files, name)
    spoil(path, pair)
    with pytest.raises(TlsError) as refused:
        load(files)
    [(field, text)] = refused.value.faults
    assert field == name
    assert words in text
    assert str(path) in text
    with pytest.raises(SettingsError, match=f"^LICTOR_TLS_{name.upper()}: "):
        checked_tls(settings(files))


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    missing = TlsFiles(tmp_path / "a", tmp_path / "b", tmp_path / "c")
    with pytest.raises(SettingsError) as refused:
        checked_tls(settings(missing))
    for variable in ("LICTOR_TLS_CERT_FILE: ", "LICTOR_TLS_KEY_FILE: ", "LICTOR_TLS_CLIENT_CA_FILE: "):
        assert variable in str(refused.value)


def test_the_group_may_read_the_key(files: TlsFiles) -> None:
    files.key_file.chmod(0o440)
    assert load(files).key


def test_files_that_need_each_other() -> None:
    assert named_tls(settings()) is None
    for given, message in (
        ({"tls_cert_file": "a"}, "LICTOR_TLS_CERT_FILE needs LICTOR_TLS_KEY_FILE"),
        ({"tls_key_file": "a"}, "LICTOR_TLS_KEY_FILE needs LICTOR_TLS_CERT_FILE"),
        ({"tls_client_ca_file": "a"}, "LICTOR_TLS_CLIENT_CA_FILE needs LICTOR_TLS_CERT_FILE and LICTOR_TLS_KEY_FILE"),
    ):
        with pytest.raises(SettingsError, match=f"^{message}$"):
            named_tls(settings(None, **given))


@pytest.mark.parametrize(
    ("api", "json", "seen"),
    [
        ("127.0.0.1:1", None, []),
        ("localhost:1", "[::1]:2", []),
        ("0.0.0.0:1", "127.0.0.1:2", ["0.0.0.0:1"]),
        ("127.0.0.9:1", "[::]:2", ["[::]:2"]),
        ("lictor.example:1", None, ["lictor.example:1"]),
    ],
)
def test_addresses_that_others_may_reach(api: str, json: str | None, seen: list[str]) -> None:
    assert open_addresses(settings(None, api_addr=api, json_addr=json)) == seen


def test_a_replacement_by_renames_is_taken_up_whole(files: TlsFiles, authority: Authority) -> None:
    watch = TlsWatch(files)
    assert watch.renewed() is None
    new = authority.server()
    new.write(files.cert_file.parent, "server")
    found = watch.renewed()
    assert found is not None
    assert (found.certificate, found.key) == (new.certificate, new.key)
    assert watch.material == found
    assert watch.renewed() is None


def test_a_replacement_in_place_is_taken_up(files: TlsFiles, authority: Authority) -> None:
    watch, new = TlsWatch(files), authority.server()
    files.cert_file.write_bytes(new.certificate)
    assert watch.renewed() is None, "the key is still the old one"
    files.key_file.write_bytes(new.key)
    assert watch.renewed() == load(files)


def test_a_replacement_behind_a_link_is_taken_up(authority: Authority, tmp_path: Path) -> None:
    """As Kubernetes mounts secrets: files are links through a folder that is a link, which is renamed over."""
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        authority.server().write(tmp_path / version, "tls")
    (tmp_path / "..data").symlink_to("v1")
    for name in ("tls.pem", "tls.key"):
        (tmp_path / name).symlink_to(Path("..data") / name)
    watch = TlsWatch(TlsFiles(tmp_path / "tls.pem", tmp_path / "tls.key"))
    (tmp_path / "..fresh").symlink_to("v2")
    (tmp_path / "..fresh").rename(tmp_path / "..data")
    found = watch.renewed()
    assert found is not None
    assert found.certificate == (tmp_path / "v2" / "tls.pem").read_bytes()


def test_a_broken_replacement_is_told_of_once(files: TlsFiles, pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    watch = TlsWatch(files)
    before = watch.material
    for path, content in ((files.cert_file, b"nonsense"), (files.key_file, None)):
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        assert [watch.renewed() for _ in range(3)] == [None, None, None]
        assert watch.material == before
        said = capsys.readouterr()
        assert (said.out + said.err).count("the new TLS files cannot be used; the old ones are kept") == 1
    pair.write(files.cert_file.parent, "server")
    assert watch.renewed() is None, "they are the old ones again"
    assert watch.material == before


def test_a_touched_file_is_no_new_one(files: TlsFiles) -> None:
    watch = TlsWatch(files)
    os.utime(files.cert_file, (1, 1))
    assert watch.renewed() is None


def test_the_uris_of_a_certificate(authority: Authority) -> None:
    assert certificate_uris(authority.client("spiffe://a/b", "https://c/d").certificate) == (
        "spiffe://a/b",
        "https://c/d",
    )
    assert certificate_uris(authority.server().certificate) == ("spiffe://example.org/server",)
    assert certificate_uris(authority.client().certificate) == ()
    assert certificate_uris(authority.certificate) == ()
    assert certificate_uris(b"nonsense") == ()


@pytest.mark.parametrize("odd", [" ", '"', ",", ";", "\\", "\0", "\n", "\x7f", "ä"])
def test_one_plain_uri_is_somebody(odd: str) -> None:
    good = "spiffe://example.org/ns/a-b_c.d%2Ce?f=g&h#[i]!~"
    assert peer_identity([good]) == good
    assert peer_identity([]) == ""
    assert peer_identity([""]) == ""
    assert peer_identity([good, good]) == ""
    assert peer_identity([f"spiffe://a/{odd}b"]) == ""
