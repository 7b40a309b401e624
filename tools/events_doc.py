"""Makes docs/events.md from the registry of events.

python tools/events_doc.py make    write docs/events.md
python tools/events_doc.py check   fail when docs/events.md is stale
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from shared.events.payloads import PAYLOADS  # noqa: E402 - found from wherever the tool is started
from shared.events.registry import ALIASES, ENVELOPE, EVENTS  # noqa: E402
from shared.events.schema import Field  # noqa: E402

PAGE: Final = ROOT / "docs" / "events.md"

HEAD: Final = """\
# Events

<!-- Made by tools/events_doc.py from shared/events/. Edit those files, then run
`.venv/bin/python tools/events_doc.py make`. -->

Every change leaves an event, in the transaction of the change: a change without its event, or an event without its
change, there is not. A repeat with the same `request_id` changes nothing and tells nothing. No event holds a license
key, an API key or a part of one; an email address is in the events of its own customer alone.

`client.licenses.events(license_id)` reads those of a license ([licensing.md](licensing.md#events)). Webhooks do not send
them yet.

## Envelope

"""

PROMISE: Final = """
## What time does

Some events nobody asks for: an expiry comes, or a check-in is due. A worker tells them, with `source` and `actor`
`worker`, within seconds of the moment, whose exact time is `boundary_time` in `data`.

| the moment | is told as |
|---|---|
| three days before the expiry | `license.expiring_soon` |
| the expiry, where the policy has a grace period | `license.grace_started` |
| the end of the grace period, or the expiry without one | `license.expired` |
| the same, under the expiration strategy REVOKE | also `license.revoked`, with the `reason` `expired` |
| before a check-in is due: three days, or a quarter of its interval where that is less | `license.check_in.required_soon` |
| the time at which it is due | `license.check_in.overdue` |

- **Once each**, whatever is killed or restarted and however many processes run.
- A moment that comes while no process runs is told late, once. So look at `boundary_time`: of a license that was made or
  renewed with less than three days to go, or found so late, `license.expiring_soon` is told at once, even past the end.
- A moment that was moved before it was seen is not told: a license renewed in time tells of its new expiry alone. One that
  was told is told again only if it lay ahead in between.
- A suspended, revoked or banned license tells nothing. What passed while it was suspended is told when it is reinstated.
- A license that has ended tells no check-ins, unless its policy lets it be used on.

`license.validated.first` is told within seconds of the first validation that said the license is valid; `validated_at` is
its time. A process that is killed at that moment loses it: then the next validation is the first.

## Order

Events of one subject are in the order of `subject_seq`. Between subjects there is no order; `occurred_at` may run a
little behind or ahead there.

## Schemas and versions

`data` is the subject as it is after the change. Every field of its schema is always there, `null` where it is absent.
Fields may be added at any time, and types too: ignore those that you do not know. A field that goes, or means something
else, makes a new `schema_version`.

"""

NAMES: Final = """
Names are dotted, in lower case, and do not change.

## Names elsewhere

Whoever asks for events by type may use these names of other systems too. What is told has the name here.

"""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    lines.insert(1, "|" + "---|" * len(head))
    return "\n".join(lines) + "\n"


def _fields(fields: Sequence[Field]) -> str:
    rows: list[tuple[str, str, str]] = []
    for field in fields:
        kind = " or ".join(f"`{value}`" for value in field.values) or field.kind.value
        rows.append((f"`{field.name}`", kind + (" or null" if field.nullable else ""), field.means))
    return _table(("field", "value", "what"), rows)


def render() -> str:
    """The whole page."""
    parts = [HEAD, _fields(ENVELOPE), PROMISE]
    also = {event.name: event.also for event in EVENTS.values() if event.also}
    types = [
        (
            f"`{event.name}`",
            event.means,
            ", ".join([f"[{event.payload.name}](#{event.payload.name})", *(f"`{field.name}`" for field in event.also)]),
            str(event.payload.version),
        )
        for event in EVENTS.values()
    ]
    for payload in PAYLOADS:
        parts.append(f"### {payload.name}\n\n{_fields(payload.fields)}\n")
    if also:
        more = {field.name: field for fields in also.values() for field in fields}
        parts.append(f"### What some hold beside\n\n{_fields(list(more.values()))}\n")
    parts += ["## Types\n\n", _table(("type", "what happened", "data", "version"), types)]
    if ALIASES:
        aliases = [(f"`{alias}`", f"`{name}`") for alias, name in ALIASES.items()]
        parts += [NAMES, _table(("name elsewhere", "name here"), aliases)]
    return "".join(parts)


def make() -> int:
    PAGE.write_text(render())
    return 0


def check() -> int:
    if PAGE.exists() and PAGE.read_text() == render():
        print("docs/events.md is fresh")
        return 0
    print("docs/events.md is stale: run `.venv/bin/python tools/events_doc.py make`")
    return 1


if __name__ == "__main__":
    actions = {"make": make, "check": check}
    if len(sys.argv) != 2 or sys.argv[1] not in actions:
        raise SystemExit(__doc__)
    raise SystemExit(actions[sys.argv[1]]())
