"""What shipped applications and license keys may ask: callers whose credential is in its user's hands."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from lictor.common.v1.common_pb2 import LicenseSelector, View
from lictor.license.v1 import validation_service_pb2 as pb

from shared.facts.license import Loaded
from shared.rpc.auth import not_for
from shared.tenancy import Principal, PrincipalKind

MAX_PUBLISHABLE_BATCH: Final = 10


def is_shipped(principal: Principal) -> bool:
    """Whether the caller has a publishable key: an application in its user's hands."""
    return principal.kind in {PrincipalKind.PUBLISHABLE_KEY, PrincipalKind.LICENSE_KEY}


def refuse_large_batch(principal: Principal, items: int) -> None:
    """CALLER_NOT_ALLOWED where a shipped application asks for more at once than it may."""
    if is_shipped(principal) and items > MAX_PUBLISHABLE_BATCH:
        raise not_for(principal, f"a publishable key asks for at most {MAX_PUBLISHABLE_BATCH} at once, not {items}")


def refuse_view(principal: Principal, view: View.Kind.ValueType) -> None:
    """CALLER_NOT_ALLOWED where a shipped application asks for more than a decision."""
    if is_shipped(principal) and view not in {View.KIND_UNSPECIFIED, View.DECISION}:
        raise not_for(principal, "a publishable key gets the view DECISION alone; leave `view` out")


def refuse_without_proof(principal: Principal, selector: LicenseSelector) -> None:
    """CALLER_NOT_ALLOWED where a shipped application names a license that it has not shown to hold the key of."""
    if not selector.license_id:
        return
    if principal.kind is PrincipalKind.PUBLISHABLE_KEY:
        raise not_for(
            principal,
            "a publishable key names a license by its key: send license.license_key in place of license.license_id",
        )
    refuse_other_license(principal, selector.license_id)


def refuse_without_certificate(principal: Principal, request: pb.ValidateLicenseRequest) -> None:
    """CALLER_NOT_ALLOWED where a caller means its own certificate and has none that is a workload's."""
    is_meant = request.identity.WhichOneof("identity") == "workload"
    if is_meant and principal.kind is not PrincipalKind.WORKLOAD:
        raise not_for(principal, "only a workload with a certificate is known by it: show a fingerprint")


def refuse_other_license(principal: Principal, license_id: str | None) -> None:
    """CALLER_NOT_ALLOWED where a license key asks about another license than its own, or about none that there is."""
    if principal.kind is PrincipalKind.LICENSE_KEY and license_id != principal.license_id:
        raise not_for(
            principal, "a license key is good for its own license alone: leave the selector out, or send the same key"
        )


def narrowed(principal: Principal, loaded: Loaded) -> Loaded:
    """The facts as a license key may ask about them: of its own license, and until the key ends. CALLER_NOT_ALLOWED."""
    if principal.kind is not PrincipalKind.LICENSE_KEY:
        return loaded
    refuse_other_license(principal, loaded.facts and loaded.facts.license_id)
    if loaded.facts is None:
        return loaded
    ends = [end for end in (loaded.facts.key_expires_at, principal.expires_at) if end is not None]
    return replace(loaded, facts=replace(loaded.facts, key_expires_at=min(ends, default=None)))


def fill_in(principal: Principal, selector: LicenseSelector) -> None:
    """A caller with a license key means the license of that key where it names none."""
    if principal.kind is PrincipalKind.LICENSE_KEY and selector.WhichOneof("selector") is None:
        selector.license_id = principal.license_id
