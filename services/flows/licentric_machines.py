"""Licentric's machines: seats of a desktop application, a floating license, and a file for a computer without a network."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import lictor
from lictor import Lictor

from services.flows.seller import LAPTOP, Seller
from services.flows.walk import Walk

DESKTOP: Final = "desktop-0002"
PHONE: Final = "phone-0003"


def desktop(walk: Walk, seller: Seller) -> None:
    """Two machines, a third refused, and a seat that is free at once."""
    issued = seller.licenses.licenses.create(policy_id=seller.policy_id)
    walk.expect("a validation before any activation", seller.validate(issued.key).code, "NO_MACHINE")
    activate = seller.machines.activate
    laptop = activate(key=issued.key, fingerprint=LAPTOP, hostname="ada-laptop", platform="LINUX")
    walk.expect("the laptop takes a seat, of two", (laptop.seats.taken, laptop.seats.limit), (1, 2))
    again = activate(key=issued.key, fingerprint=LAPTOP)
    same = again.machine.machine_id == laptop.machine.machine_id
    walk.expect("  and keeps it when it asks again", (again.already_active, same), (True, True))
    activate(key=issued.key, fingerprint=DESKTOP)
    walk.refused("a third machine", "MACHINE_LIMIT_EXCEEDED", lambda: activate(key=issued.key, fingerprint=PHONE))
    known = seller.licenses.validate(key=issued.key, fingerprint=LAPTOP, fully_consistent=True)
    walk.expect("validation on the laptop", known.code, "VALID")
    walk.expect("  and on the third", seller.validate(issued.key, fingerprint=PHONE).code, "FINGERPRINT_NOT_FOUND")
    seller.machines.machines.deactivate(laptop.machine.machine_id, reason="sold")
    walk.expect("deactivated: the next validation", seller.validate(issued.key).code, "FINGERPRINT_NOT_FOUND")
    taken = activate(key=issued.key, fingerprint=PHONE)
    walk.expect("  and its seat is free for the third", taken.seats.taken, 2)


def floating(walk: Walk, test: Lictor, machines: Lictor, product_id: str) -> None:
    """A seat that is held while somebody works, and is back when he stops."""
    policy = test.policies.create(product_id=product_id, display_name="Team", template="saas", max_machines=1).policy
    issued = test.licenses.create(policy_id=policy.policy_id)
    with machines.hold_seat(key=issued.key, fingerprint=LAPTOP, grace=timedelta(seconds=5)) as seat:
        walk.expect("template saas, one seat: held while the block runs", seat.lost, False)
        walk.refused(
            "  another user meanwhile",
            "MACHINE_LIMIT_EXCEEDED",
            lambda: machines.acquire_seat(key=issued.key, fingerprint=DESKTOP),
        )
    leased = machines.acquire_seat(key=issued.key, fingerprint=DESKTOP, ttl=timedelta(seconds=60))
    walk.expect("  and afterwards, with the number of its lease", leased.granted.machine.lease.epoch, 2)


def offline(walk: Walk, seller: Seller) -> None:
    """A file that proves the seat without a call, and one that was touched."""
    issued = seller.issue()
    [machine] = seller.machines.machines.list(license_id=issued.license.license_id)
    made = seller.machines.machines.issue_file(
        machine.machine_id, fingerprint=LAPTOP, ttl=timedelta(days=7), license_key=issued.key
    )
    keys = seller.licenses.signing_keys.public(made.key_set_id)

    def verified(text: str, fingerprint: str = LAPTOP) -> object:
        return lictor.verify_machine_file(
            text, keys=keys, state=None, fingerprint=fingerprint, license_key=issued.key
        ).machine_id

    walk.expect("a machine file, verified without a call", verified(made.file), machine.machine_id)
    walk.raised("  on another machine", lictor.LicenseFileError, lambda: verified(made.file, DESKTOP))
    middle = len(made.file) // 2
    touched = made.file[:middle] + ("A" if made.file[middle] != "A" else "B") + made.file[middle + 1 :]
    walk.raised("  with one character changed", lictor.LicenseFileError, lambda: verified(touched))
