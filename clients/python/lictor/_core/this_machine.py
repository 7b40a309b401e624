"""The fingerprint of the machine that the program runs on: facts are read, and a pure function judges them."""

from __future__ import annotations

from .fingerprint import Fingerprint, fingerprint_of
from .machine_facts import collect


def fingerprint(*, product: str = "") -> Fingerprint:
    """The fingerprint of this machine: the same after a restart, an update, and another network card.

    Reads files and, on macOS, asks one system program; nothing goes over a network. See docs/fingerprints.md.

    Args:
        product: Fingerprints of two products have nothing in common. Choose it once: a machine that was activated under
            one is not known under another.

    Raises:
        NoStableIdentityError: Nothing identifies this machine and stays, as in a container without a mounted identity.
    """
    return fingerprint_of(collect(), product=product)


class ThisMachine:
    """Reads the machine once for each product, so that a client may be asked with every call."""

    def __init__(self) -> None:
        self._made = dict[str, Fingerprint]()

    def fingerprint(self, product: str) -> Fingerprint:
        """As above; a refusal is not kept."""
        if product not in self._made:
            self._made[product] = fingerprint(product=product)
        return self._made[product]
