"""License and machine files for tests: signed with a key that everybody knows."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from lictor._core.offline_format import FileKind, FileSecret, fingerprint_mark, moment, write_file

KID = "kid_000102030405060708090a0b0c0d0e0f"
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ISSUED = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
ENDS = ISSUED + timedelta(days=14)
US = timedelta(microseconds=1)
LICENSE_KEY = "PROAPP-AB12-CD34-EF56-GH78"
FINGERPRINT = "a fingerprint of 33 characters .."


def jwk(private: Ed25519PrivateKey = PRIVATE, kid: str = KID) -> dict[str, str]:
    x = base64.urlsafe_b64encode(private.public_key().public_bytes_raw()).decode().rstrip("=")
    return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "alg": "EdDSA", "use": "sig"}


KEYS = json.dumps({"keys": [jwk()]})


def payload(kind: FileKind = FileKind.LICENSE, **more: Any) -> dict[str, Any]:
    """What a file says, with some of it said otherwise."""
    said: dict[str, Any] = {
        "iss": "license-server", "aud": "pro-app", "kind": kind.name, "file_id": "file_1", "mode": "TEST",
        "seq": 7, "revocation_epoch": 2, "server_time": moment(ISSUED), "not_before": moment(ISSUED),
        "expires_at": moment(ENDS), "features": [],
        "license": {
            "license_id": "lic_1", "product_id": "prod_1", "policy_id": "pol_1", "customer_id": None, "starts_at": None,
            "expires_at": None, "grace_end": None, "tier": {"tier_id": "tier_1", "slug": "pro"},
        },
        "policy": {"floating": False}, "machine": None, "fingerprint": None,
    }  # fmt: skip
    if kind is FileKind.MACHINE:
        said["machine"] = {"machine_id": "mach_1"}
        said["fingerprint"] = fingerprint_mark(FINGERPRINT, bytes(16))
    return {**said, **more}


def written(
    said: Mapping[str, Any] | None = None,
    kind: FileKind = FileKind.LICENSE,
    secret: FileSecret | None = None,
    private: Ed25519PrivateKey = PRIVATE,
    kid: str = KID,
) -> str:
    """A file with nothing random in it."""
    said = payload(kind) if said is None else said
    return write_file(kind, said, kid=kid, sign=private.sign, secret=secret, random=bytes)
