"""From the model of signing keys to protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lictor.license.v1 import token_service_pb2 as pb

from services.license.signing_key_model import KeyAlgorithm, SigningKey
from shared.rpc.render import timestamp

_JOSE: Final[Mapping[str, str]] = {KeyAlgorithm.ED25519.value: "EdDSA"}
"""The names of RFC 8037 and RFC 7518."""


def json_web_key(signing_key_id: str, alg: str, jwk: Mapping[str, str]) -> pb.JsonWebKey:
    return pb.JsonWebKey(
        kty=jwk["kty"], crv=jwk["crv"], x=jwk["x"], kid=signing_key_id, alg=_JOSE[alg], use="sig"
    )  # fmt: skip


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
