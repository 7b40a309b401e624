"""Which license a request is about."""

from __future__ import annotations

from collections.abc import Callable

from lictor.common.v1.common_pb2 import LicenseSelector

from services.machine.resources import Resources
from shared.errors import Reason, not_found
from shared.facts.license import Wanted
from shared.rpc.auth import not_for
from shared.rpc.context import CallContext
from shared.rules import license_keys
from shared.tenancy import PrincipalKind


async def license_of(r: Resources, context: CallContext, selector: LicenseSelector, check: Callable[[], None]) -> str:
    """The id of the license; of a caller with a license key its own where it names none. `check` looks at the request then.

    LICENSE_NOT_FOUND, RATE_LIMITED, and CALLER_NOT_ALLOWED where a shipped application names a license without its key.
    """
    principal = context.principal
    own = principal.kind is PrincipalKind.LICENSE_KEY
    if own and selector.WhichOneof("selector") is None:
        selector.license_id = principal.license_id
    check()
    if selector.license_id:
        if principal.kind is PrincipalKind.PUBLISHABLE_KEY:
            raise not_for(
                principal,
                "a publishable key names a license by its key: send license.license_key in place of license.license_id",
            )
        license_id = selector.license_id
    else:
        key = license_keys.canonical(selector.license_key)
        loaded = await r.facts.one(principal.tenant, Wanted(r.hasher.candidates(key), None))
        # A key that there is not has a rate of its own.
        context.charge_license(str(hash(key)) if loaded.facts is None else loaded.facts.license_id)
        if loaded.facts is None:
            raise not_found(Reason.LICENSE_NOT_FOUND, "")
        license_id = loaded.facts.license_id
    if own and license_id != principal.license_id:
        raise not_for(principal, "a license key is good for its own license alone: leave the selector out")
    return license_id
