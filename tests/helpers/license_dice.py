"""Draws what to ask of an account at random, so that all that the docs tell of comes up. The same seed draws the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random
from typing import Any, Final, TypeVar

from tests.helpers.license_acts import LICENSE_ACTS, Act
from tests.helpers.license_model import Asked, License, State, Terms

T = TypeVar("T")

# Hours and minutes that add up to nothing near 0: no moment of a license comes while a test looks.
_HOUR, _MINUTE = timedelta(hours=1), timedelta(minutes=1)
DURATIONS: Final = (49 * _HOUR + 13 * _MINUTE, 1464 * _HOUR + 7 * _MINUTE)
_DATES: Final = (-100 * _HOUR, -100 * _HOUR, -7 * _HOUR, 5 * _HOUR, 60 * _HOUR, 1000 * _HOUR)
_KEYS: Final = ("BOIL-0001", "boil-oool", "OWN-KEY-2", "own-key-3")
_NAMES: Final = ("", "one", "two", "three")
_EMAILS: Final = ("ada@example.com", "Ada@Example.COM", "grace@example.com")
_REFS: Final = ("user-1", "user-2")
_SLUGS: Final = ("free", "pro", "none")
_NEVER_THERE: Final = "gone_0"

_TERMS: Final[Mapping[str, tuple[float, Sequence[Any]]]] = {
    "duration": (0.7, (*DURATIONS, None)),
    "grace_period": (0.4, (timedelta(0), 9 * _HOUR + 31 * _MINUTE, 200 * _HOUR)),
    "expiration_strategy": (0.5, ("RESTRICT_ACCESS", "REVOKE", "MAINTAIN_ACCESS", "ALLOW_ACCESS")),
    "renewal_basis": (0.6, ("FROM_EXPIRY", "FROM_NOW", "FROM_NOW_IF_EXPIRED")),
    "transfer_strategy": (0.5, ("KEEP_EXPIRY", "RESET_EXPIRY")),
    "is_trial": (0.3, (True, True, False)),
    "trial_duration": (0.15, (31 * _HOUR + 17 * _MINUTE, None)),
    "max_uses": (0.4, (None, 1, 2, 5)),
    "uses_counted_by": (0.3, ("EXPLICIT", "VALIDATION")),
    "require_check_in": (0.3, (True, True, False)),
    "check_in_interval": (0.5, ("DAY", "DAY", "DAY", "WEEK", "MONTH", "YEAR")),
    "check_in_count": (0.3, (1, 2, 3)),
    "require_product_scope": (0.08, (True, False)),
    "require_policy_scope": (0.08, (True, False)),
    "require_user_scope": (0.08, (True, False)),
    "overridable": (0.4, (frozenset({"MAX_USES"}), frozenset({"MAX_USES", "MAX_MACHINES"}), frozenset[str]())),
}
_BASES: Final = ("FROM_CREATION", "FROM_FIRST_VALIDATION", "FROM_FIRST_USE")
_WEIGHTS: Final[Mapping[str, int]] = {
    **dict.fromkeys(LICENSE_ACTS, 6), "revoke": 2, "ban": 2, "delete": 2, "renew": 9, "increment_uses": 10, "update": 9,
    "create": 16, "validate": 45, "update_policy": 9, "create_policy": 3, "delete_policy": 2, "update_tier": 3,
    "delete_tier": 2, "create_tier": 2, "ban_customer": 3, "unban_customer": 4, "update_customer": 3, "create_product": 1,
}  # fmt: skip


class Dice:
    """Draws acts, each for the account as it is then."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def rarely(self, chance: float = 0.1) -> bool:
        return self._random.random() < chance

    def one(self, of: Sequence[T]) -> T:
        return self._random.choice(of)

    def of(self, there: Mapping[str, Any], strange: float = 0.03) -> str:
        """One of what there is, or what was never there."""
        return _NEVER_THERE if not there or self.rarely(strange) else self.one(list(there))

    def terms(self) -> dict[str, Any]:
        drawn = {name: self.one(values) for name, (chance, values) in _TERMS.items() if self.rarely(chance)}
        if not self.rarely(0.05):  # where it would contradict itself, mostly without
            if drawn.get("trial_duration") is not None:
                drawn["is_trial"] = True
            if drawn.get("uses_counted_by") == "VALIDATION":
                drawn["max_uses"] = drawn.get("max_uses") or 5
            if drawn.get("require_check_in"):
                drawn["check_in_interval"] = drawn.get("check_in_interval", "DAY")
        return drawn

    def new_policy(self, product_id: str) -> Act:
        drawn = Terms(**self.terms())
        waits = drawn.at_first is not None or self.rarely(0.05)
        basis = self.one(_BASES) if waits else _BASES[0]
        return Act("create_policy", {"product_id": product_id, "terms": replace(drawn, expiration_basis=basis)})

    def holder(self, state: State) -> tuple[str, str] | None:
        drawn = self._random.random()
        if drawn < 0.3:
            return None
        if drawn < 0.55:
            return ("customer_id", self.of(state.customers))
        return ("email", self.one(_EMAILS)) if drawn < 0.8 else ("subject_ref", self.one(_REFS))

    def date(self, now: datetime) -> datetime:
        return (now + self.one(_DATES)).replace(microsecond=0)

    def act(self, state: State, now: datetime) -> Act:
        (kind,) = self._random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
        match kind:
            case "create_policy":
                return self.new_policy(self.of(state.products))
            case "create_product":
                args = {"code": self.one(("AA", "CC"))}
            case "create":
                args = self._create(state, now)
            case "validate":
                args = self._validation(state)
            case _ if kind in LICENSE_ACTS:
                args = self._of_a_license(kind, state, now)
            case _:
                args = self._of_the_catalog(kind, state)
        return Act(kind, args)

    def _of_the_catalog(self, kind: str, state: State) -> dict[str, Any]:
        match kind:
            case "update_policy":
                terms = self.terms() or {"grace_period": timedelta(0)}
                return {"policy_id": self.of(state.policies), "terms": terms}
            case "create_tier":
                return {"product_id": self.of(state.products), "slug": self.one(_SLUGS), "position": self.one(range(4))}
            case "update_tier":
                changes = {"slug": self.one(_SLUGS)} if self.rarely(0.2) else {}
                return {"tier_id": self.of(state.tiers), "position": self.one(range(4)), **changes}
            case "update_customer":
                named = (
                    {"email": self.one((*_EMAILS, ""))} if self.rarely(0.5) else {"subject_ref": self.one((*_REFS, ""))}
                )
                return {"customer_id": self.of(state.customers), **named}
            case "delete_policy" | "delete_tier":
                there = state.policies if kind == "delete_policy" else state.tiers
                return {kind.replace("delete_", "") + "_id": self.of(there)}
            case _:
                return {"customer_id": self.of(state.customers), "reason": "why"}

    def _create(self, state: State, now: datetime) -> dict[str, Any]:
        start = self.date(now) if self.rarely(0.4) else None
        return {
            "policy_id": self.of(state.policies),
            "tier_id": self.of(state.tiers) if self.rarely(0.6) else "",
            "customer": self.holder(state),
            "key": self.one(_KEYS) if self.rarely(0.15) else "",
            "external_id": self.one(_NAMES) if self.rarely(0.3) else "",
            "display_name": self.one(_NAMES),
            "start_time": start,
            "expire_time": self.date(now) if self.rarely(0.4) else None,
            "max_uses": self.one((1, 3)) if self.rarely(0.25) else None,
        }

    def _of_a_license(self, kind: str, state: State, now: datetime) -> dict[str, Any]:
        license_id = self.of(state.licenses)
        found = state.licenses.get(license_id)
        args: dict[str, Any] = {"license_id": license_id}
        if kind != "update" and self.rarely(0.5):
            args["reason"] = "why"
        if kind not in {"check_in", "increment_uses", "decrement_uses", "reset_uses"} and self.rarely(0.2):
            args["etag"] = f"r{found.revision}" if found is not None and self.rarely(0.7) else "r999"
        match kind:
            case "reinstate":
                status_asks = found is not None and found.status == "active"
                args["expire_time"] = self.date(now) if self.rarely(0.9 if status_asks else 0.1) else None
            case "update":
                changes = {
                    "display_name": self.one(_NAMES), "external_id": self.one(_NAMES), "start_time": self.date(now),
                    "expire_time": None if self.rarely(0.2) else self.date(now), "max_uses": self.one((None, 1, 3)),
                }  # fmt: skip
                names = self._random.sample(list(changes), self.one((1, 1, 2, 3)))
                args["changes"] = {name: changes[name] for name in sorted(names)}
            case "change_tier":
                args["tier_id"] = "" if self.rarely(0.2) else self.of(state.tiers)
            case "change_policy":
                args["policy_id"] = self.of(state.policies)
            case "transfer":
                args["customer"] = self.holder(state)
            case "rotate_key":
                args["key"] = self.one(_KEYS) if self.rarely(0.3) else ""
                args["overlap"] = timedelta(days=2) if self.rarely(0.5) else None
            case "increment_uses" | "decrement_uses":
                args["uses"] = self.one((1, 1, 2, 3))
            case _:
                pass
        return args

    def _validation(self, state: State) -> dict[str, Any]:
        key = self.of(state.keys, 0.02) if self.rarely(0.6) else ""
        license_id = state.keys[key].license_id if key in state.keys else self.of(state.licenses)
        found = state.licenses.get(license_id)
        asked = Asked(
            self._product(found, state) if self.rarely(0.25) else "",
            (found.policy_id if found is not None and self.rarely(0.7) else self.of(state.policies))
            if self.rarely(0.25) else "",
            self.one(_SLUGS) if self.rarely(0.25) else "",
            self._user(found, state) if self.rarely(0.25) else None,
            self.one(((), ("export",))) if self.rarely(0.05) else None,
        )  # fmt: skip
        how = self.one(("record", "token", "leased"))
        return {"key": key.lower() if self.rarely(0.3) else key, "license_id": license_id, "asked": asked, "how": how}

    def _product(self, found: License | None, state: State) -> str:
        mine = found.product_id if found is not None and self.rarely(0.7) else self.of(state.products)
        return state.products.get(mine, mine) if self.rarely(0.5) else mine

    def _user(self, found: License | None, state: State) -> tuple[str, str] | None:
        holder = state.customers.get(found.customer_id) if found is not None else None
        if found is None or holder is None or self.rarely(0.3):
            return self.holder(state)
        way, name = self.one(
            (("customer_id", found.customer_id), ("email", holder.email.upper()), ("subject_ref", holder.subject_ref))
        )
        return (way, name) if name else None
