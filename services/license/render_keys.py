"""From the model of signing keys, and of what they sign, to protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lictor.license.v1 import token_service_pb2 as pb

from services.license.file_model import FileStatus, LicenseFile
from services.license.signing_key_model import KeyAlgorithm, SigningKey
from shared.rpc.render import timestamp

_JOSE: Final[Mapping[str, str]] = {KeyAlgorithm.ED25519.value: "EdDSA"}
"""The names of RFC 8037 and RFC 7518."""


def json_web_key(signing_key_id: str, alg: str, jwk: Mapping[str, str]) -> pb.JsonWebKey:
    return pb.JsonWebKey(
        kty=jwk["kty"], crv=jwk["crv"], x=jwk["x"], kid=signing_key_id, alg=_JOSE[alg], use="sig"
    )  # fmt: skip


def license_file(value: LicenseFile, status: FileStatus) -> pb.LicenseFile:
    return pb.LicenseFile(
        license_file_id=value.license_file_id,
        license_id=value.license_id,
        seq=value.seq,
        signing_key_id=value.signing_key_id,
        status=pb.LicenseFileStatus.Status.Value(status.value),
        encrypted=value.encrypted,
        bound=value.bound,
        issue_time=timestamp(value.issued_at),
        start_time=timestamp(value.not_before),
        expire_time=timestamp(value.expires_at),
    )


def signing_key(value: SigningKey) -> pb.SigningKey:
    return pb.SigningKey(
        signing_key_id=value.signing_key_id,
        product_id=value.product_id,
        purpose=pb.SigningKeyPurpose.Kind.Value(value.purpose.value),
        algorithm=pb.SigningKeyAlgorithm.Kind.Value(value.alg.value),
        status=pb.SigningKeyStatus.Status.Value(value.status.value),
        public_jwk=json_web_key(value.signing_key_id, value.alg.value, value.public_jwk),
        activate_time=timestamp(value.activates_at),
        retire_time=timestamp(value.retired_at),
        revoke_time=timestamp(value.revoked_at),
        create_time=timestamp(value.created_at),
        update_time=timestamp(value.updated_at),
        revision=value.revision,
    )
