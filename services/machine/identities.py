"""Who a machine is: what a request says, hashed, and which of the known machines that is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lictor.common.v1.common_pb2 import MachineIdentity, NamedFingerprint

from services.machine.model import IdentityKind, Machine
from shared.crypto.fingerprints import PLAIN, WORKLOAD, FingerprintHasher
from shared.errors import DomainError, Reason
from shared.rpc.auth import not_for
from shared.rpc.context import CallContext
from shared.rules.fingerprints import MatchingRule, match
from shared.tenancy import PrincipalKind, Tenant


@dataclass(frozen=True, slots=True)
class Identity:
    """What a caller presents: by name its hashes under each live version of the secret, newest first."""

    kind: IdentityKind
    presented: Mapping[str, Sequence[bytes]]

    @property
    def hashes(self) -> Sequence[bytes]:
        """All that a look-up must try."""
        return [hashed for candidates in self.presented.values() for hashed in candidates]

    @property
    def stored(self) -> Mapping[str, bytes]:
        """What is kept, by name."""
        return {name: candidates[0] for name, candidates in self.presented.items()}

    @property
    def identity_hashes(self) -> Sequence[bytes]:
        """One hash of all of it under each live version, newest first."""
        versions = range(len(next(iter(self.presented.values()))))
        return [_of_all({name: candidates[n] for name, candidates in self.presented.items()}) for n in versions]


def _of_all(hashed: Mapping[str, bytes]) -> bytes:
    """Of a single fingerprint its own hash, of several a hash of them in the order of their names."""
    if len(hashed) == 1 and PLAIN in hashed:
        return hashed[PLAIN]
    ordered = b"".join(len(name).to_bytes(1) + name.encode() + hashed[name] for name in sorted(hashed))
    first = next(iter(hashed.values()))
    return first[:1] + hashlib.sha256(ordered).digest()


def identity_of(hasher: FingerprintHasher, context: CallContext, identity: MachineIdentity) -> Identity:
    """What a request says that its fields are good of. CALLER_NOT_ALLOWED where it means its own certificate and has none."""
    tenant = context.principal.tenant
    match identity.WhichOneof("identity"):
        case "workload":
            if context.principal.kind is not PrincipalKind.WORKLOAD:
                raise not_for(context.principal, "only a caller with a workload's certificate is known by it")
            hashed = hasher.candidates(tenant, context.peer_identity(), WORKLOAD)
            return Identity(IdentityKind.WORKLOAD, {PLAIN: hashed})
        case "fingerprints":
            return Identity(
                IdentityKind.FINGERPRINT_SET, named_hashes(hasher, tenant, identity.fingerprints.fingerprints)
            )
        case _:
            return Identity(IdentityKind.FINGERPRINT, {PLAIN: hasher.candidates(tenant, identity.fingerprint)})


def named_hashes(
    hasher: FingerprintHasher, tenant: Tenant, named: Sequence[NamedFingerprint]
) -> Mapping[str, Sequence[bytes]]:
    """By name the hashes under each live version, newest first."""
    return hasher.candidates_of(tenant, {one.name: one.fingerprint for one in named})


def is_known_by(hasher: FingerprintHasher, tenant: Tenant, machine: Machine, fingerprint: str) -> bool:
    """Whether a text is one of the fingerprints of a machine, under whichever name."""
    workload = machine.identity_kind is IdentityKind.WORKLOAD
    return any(
        hashed in hasher.candidates(tenant, fingerprint, WORKLOAD if workload else name)
        for name, hashed in machine.fingerprints.items()
    )


def recognised(identity: Identity, rule: MatchingRule, found: Sequence[Machine], license_id: str) -> Machine | None:
    """Which of the machines is meant: the one with the most in common, of the license itself before others; None for none.

    A single fingerprint is met by the machine that has it. FINGERPRINT_TAKEN where it is of another license.
    """
    scored = [
        (len(compared.matched), machine.license_id == license_id, machine)
        for machine in found
        if machine.identity_kind is identity.kind
        and (compared := match(rule, identity.presented, set(machine.fingerprints.values()))).is_met
    ]
    if not scored:
        return None
    _, own, machine = max(scored, key=lambda one: (one[1], one[0]))
    if not own:
        raise taken("identity")
    return machine


def taken(field: str) -> DomainError:
    """FINGERPRINT_TAKEN."""
    return DomainError(
        Reason.FINGERPRINT_TAKEN,
        "another machine, within what the policy says it must be unique in, has this fingerprint",
        metadata={"field": field},
    )
