"""The calls of TokenService."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from lictor.license.v1 import token_service_pb2 as pb

from .convert import duration, fresh
from .prepared import Listing, Prepared, page, read, write

_SERVICE: Final = "/lictor.license.v1.TokenService/"


def issue_license_file(
    license_id: str,
    *,
    ttl: timedelta | None = None,
    license_key: str = "",
    fingerprint: str = "",
    reason: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.IssueLicenseFileResponse]:
    """Issues a file that proves a license offline: encrypted where `license_key` is given, bound to a machine where
    `fingerprint` is. Save `file`, and verify it with `lictor.verify_license_file`."""
    request = pb.IssueLicenseFileRequest(
        request_id=fresh(request_id),
        license_id=license_id,
        ttl=duration(ttl),
        license_key=license_key,
        fingerprint=fingerprint,
        reason=reason,
    )
    return write(_SERVICE + "IssueLicenseFile", request, pb.IssueLicenseFileResponse, timeout_s)


def list_license_files(
    license_id: str, *, page_size: int = 0, page_token: str = "", timeout_s: float | None = None
) -> Listing[pb.ListLicenseFilesResponse, pb.LicenseFile]:
    """Lists the files that were issued of a license, oldest first; not the files themselves, which are kept nowhere."""

    def ask(token: str) -> Prepared[pb.ListLicenseFilesResponse]:
        request = pb.ListLicenseFilesRequest(page_size=page_size, page_token=token, license_id=license_id)
        return page(_SERVICE + "ListLicenseFiles", request, pb.ListLicenseFilesResponse, timeout_s)

    return Listing(ask, lambda answer: answer.license_files, page_token)


def rotate_signing_key(
    product_id: str,
    *,
    publication_lead: timedelta | None = None,
    reason: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.RotateSigningKeyResponse]:
    """Gives a product another key that signs its files: at once, or after it has been published for a while."""
    request = pb.RotateSigningKeyRequest(
        request_id=fresh(request_id),
        product_id=product_id,
        publication_lead=duration(publication_lead),
        reason=reason,
    )
    return write(_SERVICE + "RotateSigningKey", request, pb.RotateSigningKeyResponse, timeout_s)


def revoke_signing_key(
    signing_key_id: str, *, reason: str = "", request_id: str | None = None, timeout_s: float | None = None
) -> Prepared[pb.RevokeSigningKeyResponse]:
    """Ends a signing key: whoever asks for the key set again refuses what it has signed."""
    request = pb.RevokeSigningKeyRequest(request_id=fresh(request_id), signing_key_id=signing_key_id, reason=reason)
    return write(_SERVICE + "RevokeSigningKey", request, pb.RevokeSigningKeyResponse, timeout_s)


def list_signing_keys(
    product_id: str, *, page_size: int = 0, page_token: str = "", timeout_s: float | None = None
) -> Listing[pb.ListSigningKeysResponse, pb.SigningKey]:
    """Lists the signing keys of a product, the revoked ones too."""

    def ask(token: str) -> Prepared[pb.ListSigningKeysResponse]:
        request = pb.ListSigningKeysRequest(page_size=page_size, page_token=token, product_id=product_id)
        return page(_SERVICE + "ListSigningKeys", request, pb.ListSigningKeysResponse, timeout_s)

    return Listing(ask, lambda answer: answer.signing_keys, page_token)


def get_json_web_key_set(key_set_id: str, *, timeout_s: float | None = None) -> Prepared[pb.GetJsonWebKeySetResponse]:
    """Reads the public keys of a set, which anybody may."""
    request = pb.GetJsonWebKeySetRequest(key_set_id=key_set_id)
    return read(_SERVICE + "GetJsonWebKeySet", request, pb.GetJsonWebKeySetResponse, lambda answer: answer, timeout_s)
