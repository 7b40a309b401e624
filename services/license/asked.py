"""What a validation asks of a license."""

from __future__ import annotations

from dataclasses import dataclass

from shared.facts.machines import MachineAsked


@dataclass(frozen=True, slots=True)
class User:
    """The customer that a caller names: exactly one of the three is set. The email is a SHA-256 of its lower case."""

    customer_id: str = ""
    subject_ref: str = ""
    email_hash: bytes = b""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the caller wants the license to be fit for; empty fields ask for nothing.

    `product` is an id or a code, `required_tier` a slug. `entitlements` None asks for none; an empty tuple is refused.
    `machine` is the one to look for. `needs_machine` False asks how the license itself stands: none has to be named, whatever its
    policy says.
    """

    product: str = ""
    policy_id: str = ""
    required_tier: str = ""
    user: User | None = None
    entitlements: tuple[str, ...] | None = None
    machine: MachineAsked | None = None
    needs_machine: bool = True
