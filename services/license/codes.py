"""The verdicts of validations, and what each says to people."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final


class Code(IntEnum):
    """The verdicts by their numbers on the wire: ten times the place of the check, and some more where several share one."""

    NOT_FOUND = 10
    BANNED = 20
    REVOKED = 30
    SUSPENDED = 40
    NOT_YET_VALID = 50
    EXPIRED = 60
    CHECK_IN_OVERDUE = 70
    PRODUCT_SCOPE_REQUIRED = 90
    PRODUCT_SCOPE_MISMATCH = 91
    POLICY_SCOPE_REQUIRED = 100
    POLICY_SCOPE_MISMATCH = 101
    TIER_SCOPE_MISMATCH = 110
    USER_SCOPE_REQUIRED = 120
    USER_SCOPE_MISMATCH = 121
    ENTITLEMENTS_SCOPE_EMPTY = 130
    ENTITLEMENTS_MISSING = 140
    MACHINE_SCOPE_REQUIRED = 150
    NO_MACHINE = 160
    NO_MACHINES = 161
    MACHINE_SCOPE_MISMATCH = 170
    FINGERPRINT_SCOPE_REQUIRED = 180
    FINGERPRINT_SCOPE_EMPTY = 181
    FINGERPRINT_NOT_FOUND = 190
    HEARTBEAT_NOT_STARTED = 200
    HEARTBEAT_DEAD = 210
    COMPONENTS_SCOPE_REQUIRED = 220
    COMPONENTS_SCOPE_EMPTY = 221
    COMPONENTS_SCOPE_MISMATCH = 222
    TOO_MANY_USERS = 240
    MACHINE_LIMIT_EXCEEDED = 250
    TOO_MANY_CORES = 260
    TOO_MUCH_MEMORY = 261
    TOO_MUCH_DISK = 262
    TOO_MANY_PROCESSES = 270
    USES_EXCEEDED = 280
    IN_GRACE = 290
    VALID = 310


CUSTOMER_IS_BANNED: Final = "The customer who holds the license is banned."
LEASE_IS_OVER: Final = "The seat of the machine was not renewed in time."
EXPIRED_AND_USABLE: Final = "The license has expired, and may still be used."

DETAILS: Final[Mapping[Code, str]] = {
    Code.NOT_FOUND: "No license has this key or id.",
    Code.BANNED: "The license is banned.",
    Code.REVOKED: "The license is revoked.",
    Code.SUSPENDED: "The license is suspended.",
    Code.NOT_YET_VALID: "The license has not started yet.",
    Code.EXPIRED: "The license has expired.",
    Code.CHECK_IN_OVERDUE: "The license has not checked in for longer than its policy allows.",
    Code.PRODUCT_SCOPE_REQUIRED: "The policy asks for the product to be named.",
    Code.PRODUCT_SCOPE_MISMATCH: "The license is of another product.",
    Code.POLICY_SCOPE_REQUIRED: "The policy asks to be named.",
    Code.POLICY_SCOPE_MISMATCH: "The license is under another policy.",
    Code.TIER_SCOPE_MISMATCH: "The license does not have the required tier, or a higher one.",
    Code.USER_SCOPE_REQUIRED: "The policy asks for the user to be named.",
    Code.USER_SCOPE_MISMATCH: "The license is not this user's.",
    Code.ENTITLEMENTS_SCOPE_EMPTY: "The list of required entitlements is empty.",
    Code.ENTITLEMENTS_MISSING: "The license lacks required entitlements.",
    Code.MACHINE_SCOPE_REQUIRED: "The policy asks for the machine to be named by its id.",
    Code.NO_MACHINE: "The license has no machine: activate one first.",
    Code.NO_MACHINES: "None of the license's seats is taken: activate a machine first.",
    Code.MACHINE_SCOPE_MISMATCH: "The license has no such machine.",
    Code.FINGERPRINT_SCOPE_REQUIRED: "The policy asks for the machine's fingerprint.",
    Code.FINGERPRINT_SCOPE_EMPTY: "The set of fingerprints is empty.",
    Code.FINGERPRINT_NOT_FOUND: "No machine of the license has this fingerprint.",
    Code.HEARTBEAT_NOT_STARTED: "The machine has not sent a heartbeat yet.",
    Code.HEARTBEAT_DEAD: "The machine has not been heard of in time.",
    Code.COMPONENTS_SCOPE_REQUIRED: "The policy asks for the machine's components.",
    Code.COMPONENTS_SCOPE_EMPTY: "The list of components is empty.",
    Code.COMPONENTS_SCOPE_MISMATCH: "The machine does not have these components.",
    Code.TOO_MANY_USERS: "The license's machines have more users than it allows.",
    Code.MACHINE_LIMIT_EXCEEDED: "The license has more machines than it allows.",
    Code.TOO_MANY_CORES: "The license's machines have more cores than it allows.",
    Code.TOO_MUCH_MEMORY: "The license's machines have more memory than it allows.",
    Code.TOO_MUCH_DISK: "The license's machines have more disk space than it allows.",
    Code.TOO_MANY_PROCESSES: "The license has more processes than it allows.",
    Code.USES_EXCEEDED: "The license has no uses left.",
    Code.IN_GRACE: "The license has expired and is in its grace period.",
    Code.VALID: "The license is valid.",
}
