"""The TLS settings of a process, as far as they can be checked before it listens."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from shared.rpc.addresses import split_address
from shared.rpc.tls import TlsError, TlsFiles, load
from shared.settings import PREFIX, ProcessSettings, SettingsError


def named_tls(settings: ProcessSettings) -> TlsFiles | None:
    """The files that the settings name, unread; None where they name none.

    Raises:
        SettingsError: One of them is named without the others that it needs.
    """
    cert, key, ca = settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file
    if cert is not None and key is not None:
        return TlsFiles(cert, key, ca)
    if cert is None and key is None and ca is None:
        return None
    missing = [name for name, path in (("tls_cert_file", cert), ("tls_key_file", key)) if path is None]
    given = [
        name for name, path in (("tls_cert_file", cert), ("tls_key_file", key), ("tls_client_ca_file", ca)) if path
    ]
    raise SettingsError(f"{_variables(given)} needs {_variables(missing)}")


def checked_tls(settings: ProcessSettings) -> TlsFiles | None:
    """The same, read and found good.

    Raises:
        SettingsError: As above, or a file cannot be used.
    """
    files = named_tls(settings)
    if files is not None:
        try:
            load(files)
        except TlsError as error:
            faults = (f"{_variables([f'tls_{name}'])}: {text}" for name, text in error.faults)
            raise SettingsError("; ".join(faults)) from None
    return files


def open_addresses(settings: ProcessSettings) -> list[str]:
    """The addresses of the services' listeners that other machines may reach."""
    addresses = (settings.api_addr, settings.json_addr)
    return [address for address in addresses if address is not None and not _is_loopback(split_address(address)[0])]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _variables(names: Iterable[str]) -> str:
    return " and ".join(PREFIX + name.upper() for name in names)
