"""The machine that a validation names, hashed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lictor.common.v1.common_pb2 import MachineIdentity, NamedFingerprint
from lictor.license.v1 import validation_service_pb2 as pb

from shared.crypto.fingerprints import PLAIN, WORKLOAD, FingerprintHasher
from shared.facts.machines import MachineAsked
from shared.rpc.context import CallContext
from shared.tenancy import Tenant


def machine_asked(
    hasher: FingerprintHasher, context: CallContext, request: pb.ValidateLicenseRequest
) -> MachineAsked | None:
    """None where a request names no machine and no part of one. Its fields are good, and a certificate is there where one is
    meant."""
    has_identity, has_parts = request.HasField("identity"), request.HasField("components")
    if not has_identity and not has_parts and not request.machine_id:
        return None
    tenant = context.principal.tenant
    return MachineAsked(
        request.machine_id,
        _fingerprints(hasher, context, request.identity) if has_identity else None,
        _named(hasher, tenant, request.components.components) if has_parts else None,
    )


def _fingerprints(
    hasher: FingerprintHasher, context: CallContext, identity: MachineIdentity
) -> Mapping[str, Sequence[bytes]]:
    tenant = context.principal.tenant
    match identity.WhichOneof("identity"):
        case "workload":
            return {PLAIN: hasher.candidates(tenant, context.peer_identity(), WORKLOAD)}
        case "fingerprints":
            return _named(hasher, tenant, identity.fingerprints.fingerprints)
        case _:
            return {PLAIN: hasher.candidates(tenant, identity.fingerprint)}


def _named(
    hasher: FingerprintHasher, tenant: Tenant, named: Sequence[NamedFingerprint]
) -> Mapping[str, Sequence[bytes]]:
    return hasher.candidates_of(tenant, {one.name: one.fingerprint for one in named})
