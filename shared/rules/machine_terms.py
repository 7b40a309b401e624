"""The words that a policy's terms of machines are said in, for who writes policies and for who goes by them. Pure."""

from __future__ import annotations

from enum import StrEnum


class MachineUniqueness(StrEnum):
    """In what a fingerprint names at most one machine, from the narrowest to the widest."""

    UNIQUE_PER_LICENSE = "UNIQUE_PER_LICENSE"
    UNIQUE_PER_POLICY = "UNIQUE_PER_POLICY"
    UNIQUE_PER_PRODUCT = "UNIQUE_PER_PRODUCT"
    UNIQUE_PER_ACCOUNT = "UNIQUE_PER_ACCOUNT"


class ComponentUniqueness(StrEnum):
    """In what a component belongs to at most one machine, from the narrowest to the widest: a machine, or what a machine's own
    fingerprint can be unique in."""

    UNIQUE_PER_MACHINE = "UNIQUE_PER_MACHINE"
    UNIQUE_PER_LICENSE = "UNIQUE_PER_LICENSE"
    UNIQUE_PER_POLICY = "UNIQUE_PER_POLICY"
    UNIQUE_PER_PRODUCT = "UNIQUE_PER_PRODUCT"
    UNIQUE_PER_ACCOUNT = "UNIQUE_PER_ACCOUNT"


class MachineLeasing(StrEnum):
    """What `max_machines` counts over."""

    PER_LICENSE = "PER_LICENSE"
    PER_USER = "PER_USER"


class ProcessLeasing(StrEnum):
    """What `max_processes` counts over."""

    PER_MACHINE = "PER_MACHINE"
    PER_LICENSE = "PER_LICENSE"
    PER_USER = "PER_USER"


class SeatAcquire(StrEnum):
    """What becomes of a machine that finds all seats taken."""

    REJECT = "REJECT"
    QUEUE = "QUEUE"
    EVICT_OLDEST = "EVICT_OLDEST"
    EVICT_DEAD_FIRST = "EVICT_DEAD_FIRST"
