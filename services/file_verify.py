"""`lictor file verify`: what a license or machine file says, or why it gives no right."""

from __future__ import annotations

import json
from pathlib import Path

import typer
from lictor import FileOfOtherKind, LicenseFileError, VerifiedFile, verify_license_file, verify_machine_file


def verify(path: Path, keys: Path, state: Path | None, fingerprint: str, license_key_file: Path | None) -> int:
    """0 and the payload on standard output; 1 and the reason on standard error; 2 where a file cannot be read."""
    try:
        text, published = path.read_bytes(), keys.read_text()
        license_key = None if license_key_file is None else license_key_file.read_text().strip()
        found = _verified(text, published, state, fingerprint, license_key)
    except LicenseFileError as refused:
        typer.echo(f"lictor: {refused.reason}: {refused}", err=True)
        return 1
    except (OSError, ValueError) as error:
        typer.echo(f"lictor: {error}", err=True)
        return 2
    typer.echo(json.dumps(found.payload, indent=2, sort_keys=True))
    return 0


def _verified(text: bytes, keys: str, state: Path | None, fingerprint: str, license_key: str | None) -> VerifiedFile:
    """By what it says it is."""
    try:
        return verify_license_file(
            text, keys=keys, state=state, license_key=license_key, fingerprint=fingerprint or None
        )
    except FileOfOtherKind:
        return verify_machine_file(text, keys=keys, state=state, license_key=license_key, fingerprint=fingerprint)
