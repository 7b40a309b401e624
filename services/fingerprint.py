"""`lictor fingerprint`: this machine's fingerprint as the client makes it, and what it is made of."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import lictor
from lictor import Fingerprint, NoStableIdentityError


def fingerprint(product: str, *, as_json: bool = False) -> int:
    """Prints it; 1 where the machine has none. What the machine says of itself is not shown, only where it says it."""
    try:
        made = lictor.fingerprint(product=product)
    except NoStableIdentityError as refusal:
        if as_json:
            said = {"reason": refusal.reason, "message": refusal.message, "remedy": refusal.remedy}
            sys.stdout.write(json.dumps({"refusal": said}, indent=2) + "\n")
        else:
            sys.stderr.write(f"lictor: no fingerprint, {refusal}\n")
        return 1
    sys.stdout.write(json.dumps(asdict(made), indent=2) + "\n" if as_json else _lines(made))
    return 0


def _lines(made: Fingerprint) -> str:
    width = max(len(use.name) for use in made.used)
    lines = [made.text, "", "used"]
    for use in made.used:
        if use.used:
            lines += [
                f"  {use.name:<{width}}  {use.source}: {use.why}",
                f"  {'':<{width}}  {made.components[use.name]}",
            ]
    others = [f"  {use.name:<{width}}  {use.source}: {use.why}" for use in made.used if not use.used]
    return "\n".join([*lines, *(["not used", *others] if others else [])]) + "\n"
