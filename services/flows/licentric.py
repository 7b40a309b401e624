"""Licentric's core concepts: products, license rules, licenses and their states, as far as the license service carries them."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Final

from lictor import Lictor

from services.flows import licentric_machines
from services.flows.seller import LAPTOP, Seller
from services.flows.walk import Walk

YEAR: Final = timedelta(days=365)
_KEY: Final = re.compile(r"PROAPP(-[0-9A-HJKMNP-TV-Z]{4}){4}")


def run(walk: Walk, test: Lictor, live: Lictor, machines: Lictor) -> None:
    """Issue, activate, validate, change the tier, suspend, reinstate, renew, revoke, ban; seats and files; each refusal shown."""
    product_id, policy_id = _catalog(walk, test)
    seller = Seller(test, machines, policy_id)
    licentric_machines.desktop(walk, seller)
    _validation(walk, seller, live)
    _tiers(walk, seller, product_id)
    _states(walk, seller)
    _expiry(walk, seller)
    licentric_machines.floating(walk, test, machines, product_id)
    licentric_machines.offline(walk, seller)
    _refusals(walk, test, policy_id)


def _catalog(walk: Walk, client: Lictor) -> tuple[str, str]:
    product = client.products.create(code="PROAPP", display_name="Pro Desktop App").product
    walk.expect("a product has a code, the prefix of its license keys", product.code, "PROAPP")
    policy = client.policies.create(
        product_id=product.product_id, display_name="Desktop, one year", template="desktop_app", duration=YEAR
    ).policy
    policy_id = policy.policy_id
    walk.expect("template desktop_app fills the license rule: machines", policy.max_machines, 2)
    walk.expect("  fingerprint required", policy.require_fingerprint, True)
    walk.expect("  offline use, days", policy.offline_max_ttl.ToTimedelta().days, 14)
    keyed = client.licenses.create(policy_id=policy_id)
    asked = client.validate(key=keyed.key)
    walk.expect("so a validation that shows none is refused", "FINGERPRINT_SCOPE_REQUIRED" in asked.all_codes, True)
    return product.product_id, policy_id


def _validation(walk: Walk, seller: Seller, live: Lictor) -> None:
    request_id = str(uuid.uuid4())
    issued = seller.issue(customer_email="ada@example.com", request_id=request_id)
    walk.expect("a key has the form PROAPP-XXXX-XXXX-XXXX-XXXX", bool(_KEY.fullmatch(issued.key)), True)
    again = seller.issue(customer_email="ada@example.com", request_id=request_id)
    walk.expect("a retry with the same request id issues nothing new", again.key == issued.key, True)
    other = seller.issue(customer_email="Ada@Example.com")
    same = other.license.customer_id == issued.license.customer_id
    walk.expect("a customer is created on issue and holds both licenses", same, True)
    walk.expect("the key validates", seller.validate(issued.key).code, "VALID")
    sloppy = issued.key.lower().replace("0", "o")
    walk.expect("so it does in lower case with o for 0", seller.validate(sloppy).code, "VALID")
    walk.expect("an unknown key", seller.validate("PROAPP-0000-0000-0000-0000").code, "NOT_FOUND")
    walk.expect("a test license asked for with a live key", live.validate(key=issued.key).code, "NOT_FOUND")


def _tiers(walk: Walk, seller: Seller, product_id: str) -> None:
    client = seller.licenses
    free = client.tiers.create(product_id=product_id, slug="free", display_name="Free", position=0).tier
    pro = client.tiers.create(product_id=product_id, slug="pro", display_name="Pro", position=10).tier
    issued = seller.issue(tier_id=free.tier_id)
    asked = seller.validate(issued.key, required_tier="pro")
    walk.expect("a license of tier free where pro is required", asked.code, "TIER_SCOPE_MISMATCH")
    client.licenses.change_tier(issued.license.license_id, pro.tier_id)
    asked = seller.validate(issued.key, required_tier="free")
    walk.expect("upgraded to pro, which stands above free", (asked.code, asked.tier), ("VALID", "pro"))


def _states(walk: Walk, seller: Seller) -> None:
    client, issued = seller.licenses, seller.issue()
    license_id = issued.license.license_id
    client.licenses.suspend(license_id, reason="payment overdue")
    walk.expect("suspended: validation", seller.validate(issued.key).code, "SUSPENDED")
    walk.refused("suspend it again", "STATE_TRANSITION_INVALID", lambda: client.licenses.suspend(license_id))
    client.licenses.reinstate(license_id)
    walk.expect("reinstated: validation", seller.validate(issued.key).code, "VALID")
    renewed = client.licenses.renew(license_id).license
    gained = renewed.expire_time.ToDatetime() - issued.license.expire_time.ToDatetime()
    walk.expect("renewed by the rule's duration, from its expiry: days", gained.days, YEAR.days)
    client.licenses.revoke(license_id, reason="refunded")
    walk.expect("revoked: the next validation", seller.validate(issued.key).code, "REVOKED")
    for action in ("suspend", "reinstate", "renew", "revoke", "ban"):
        change = getattr(client.licenses, action)
        walk.refused(
            f"{action} a revoked license", "STATE_TRANSITION_INVALID", lambda change=change: change(license_id)
        )
    banned = seller.issue()
    client.licenses.ban(banned.license.license_id, reason="key shared in public")
    walk.expect("banned: validation", seller.validate(banned.key).code, "BANNED")
    client.licenses.delete(banned.license.license_id)
    walk.expect("deleted: validation", seller.validate(banned.key).code, "NOT_FOUND")


def _expiry(walk: Walk, seller: Seller) -> None:
    now, client = datetime.now(UTC), seller.licenses
    expired = client.licenses.create(
        policy_id=seller.policy_id, start_time=now - timedelta(days=2), expire_time=now - timedelta(days=1)
    )
    license_id = expired.license.license_id
    walk.expect("past its expiry: validation", seller.validate(expired.key).code, "EXPIRED")
    walk.refused("reinstate it without a new expiry", "FIELD_INVALID", lambda: client.licenses.reinstate(license_id))
    client.licenses.reinstate(license_id, expire_time=now + YEAR)
    seller.machines.activate(key=expired.key, fingerprint=LAPTOP)
    asked = client.validate(key=expired.key, fingerprint=LAPTOP, fully_consistent=True)
    walk.expect("reinstated until next year, and activated: validation", asked.code, "VALID")
    early = client.licenses.create(policy_id=seller.policy_id, start_time=now + timedelta(days=1))
    walk.expect("before its start: validation", seller.validate(early.key).code, "NOT_YET_VALID")


def _refusals(walk: Walk, client: Lictor, policy_id: str) -> None:
    error = walk.refused(
        "a product with three bad fields",
        "FIELD_INVALID",
        lambda: client.products.create(code="pro", slug="my_app", display_name=""),
    )
    walk.expect("  names each", [v.field for v in error.violations], ["code", "slug", "display_name"])
    product_id = client.policies.get(policy_id).product_id
    walk.refused(
        "unlimited machines without consent",
        "UNLIMITED_NOT_CONFIRMED",
        lambda: client.policies.create(product_id=product_id, display_name="Unlimited"),
    )
    walk.refused(
        "a key that a license has, or had",
        "KEY_TAKEN",
        lambda: [client.licenses.create(policy_id=policy_id, key="MY-OWN-KEY-1") for _ in range(2)],
    )
