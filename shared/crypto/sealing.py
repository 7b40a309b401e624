"""What is stored for a retry: results sealed under the caller's own request id, of which only a hash is kept."""

from __future__ import annotations

import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_NONCE_BYTES = 12


def _derive(request_id: str, info: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=b"lictor/1|request|" + info).derive(request_id.lower().encode())


def request_id_hash(request_id: str) -> bytes:
    """32 bytes that find the stored result."""
    return hashlib.sha256(b"lictor/1|request-id|" + request_id.lower().encode()).digest()


def body_hash(request_id: str, body: bytes) -> bytes:
    """32 bytes that tell one request from another; keyed by the request id, so the table alone cannot be guessed against."""
    return hashlib.blake2b(body, key=_derive(request_id, b"body"), digest_size=32).digest()


def seal(request_id: str, context: bytes, result: bytes) -> bytes:
    """AES-256-GCM under a key that only the holder of the request id can derive."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(_derive(request_id, b"seal")).encrypt(nonce, result, context)


def unseal(request_id: str, context: bytes, sealed: bytes) -> bytes:
    """The result. ValueError when the row was tampered with or moved."""
    try:
        return AESGCM(_derive(request_id, b"seal")).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context)
    except InvalidTag as error:
        raise ValueError("a stored result does not belong to its request") from error
