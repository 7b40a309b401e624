"""A machine's fingerprint from its facts. Pure: the same facts give the same fingerprint.

No fact leaves the machine as it is: what is made of each is a SHA-256 with its name and the product in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .machine_identity import identify
from .machine_parts import Fact
from .machine_shape import MachineFacts

_DOMAIN: Final = "lictor/fingerprint/1"
TEXT_PREFIX: Final = "fp1_"


@dataclass(frozen=True, slots=True)
class FactUse:
    """A fact of the machine: its name, where it comes from, whether it is a component, and why not or what for."""

    name: str
    source: str
    used: bool
    why: str


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What tells this machine from others.

    Attributes:
        text: One string, `fp1_` and 64 hex digits; made of the steadiest fact alone, so a new disk or card leaves it as
            it is. `str(fingerprint)` gives it too.
        components: By name a value of 64 hex digits, one for each fact that is used: for matching by several, where some
            may change.
        used: Every fact that was looked at.
    """

    text: str
    components: Mapping[str, str]
    used: tuple[FactUse, ...]

    def __str__(self) -> str:
        return self.text


def fingerprint_of(facts: MachineFacts, *, product: str = "") -> Fingerprint:
    """The fingerprint that facts give.

    Args:
        facts: What was read on the machine.
        product: Fingerprints of two products have nothing in common, so that vendors cannot compare theirs. Another
            product is another machine to the service: choose it once.

    Raises:
        NoStableIdentityError: Nothing identifies the machine and stays.
    """
    found = identify(facts)
    components = {fact.name: _hash("component", product, fact) for fact in found if fact.value}
    anchor = next(fact for fact in found if fact.value)
    return Fingerprint(TEXT_PREFIX + _hash("text", product, anchor), components, tuple(_uses(found, anchor)))


def _hash(kind: str, product: str, fact: Fact) -> str:
    parts = (part.encode(errors="surrogatepass") for part in (_DOMAIN, kind, product, fact.name, fact.value))
    return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).hexdigest()


def _uses(found: list[Fact], anchor: Fact) -> list[FactUse]:
    why = {True: "a component; the text is made of it", False: "a component"}
    return [
        FactUse(fact.name, fact.source, bool(fact.value), why[fact is anchor] if fact.value else fact.why_not)
        for fact in found
    ]
