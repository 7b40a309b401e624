"""What the loads of licenses' facts read of machines: columns and joins of their one statement, and the facts from its rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from sys import intern
from typing import Any, Final

import asyncpg

from shared.facts.customers import CustomerValue
from shared.facts.finding import fingerprint_key
from shared.facts.machines import (
    MOST_MET,
    NO_LIMITS,
    NO_SEATS,
    ComponentsValue,
    FingerprintValue,
    Limits,
    MachineAsked,
    MachineTerms,
    MachineValue,
    SeatsValue,
)
from shared.freshness.memory import Fact

SEATS_BYTES: Final = 250
MACHINE_BYTES: Final = 600
HOLDER_BYTES: Final = 100
"""About what each machine that has a fingerprint takes in the fact of that, and each part in that of its machine."""
_OF_USERS_BYTES: Final = 600

LIMIT_NAMES: Final = tuple(one.name for one in fields(Limits))
_TERMS: Final = tuple(one.name for one in fields(MachineTerms) if one.name != "limits")
_SEATS: Final = tuple(one.name for one in fields(SeatsValue))

TERMS_COLUMNS: Final = ", ".join(
    (
        *(f"p.{name}" for name in _TERMS),
        *(f"p.max_{name}" for name in LIMIT_NAMES),
        *(f"l.max_{name}_override" for name in LIMIT_NAMES),
    )
)
# As `needs_seats`, where nobody asks for a machine.
_NEEDS_SEATS: Final = (
    "(p.require_fingerprint OR p.require_machine_scope OR p.expiration_basis = 'FROM_FIRST_ACTIVATION' OR p.strict AND "
    f"num_nonnulls({', '.join(f'p.max_{one}, l.max_{one}_override' for one in LIMIT_NAMES)}) > 0)"
)
_SEATS_COLUMNS: Final = ", ".join(("s.license_id AS seats_of", *(f"s.{name} AS seats_{name}" for name in _SEATS)))
SEATS_COLUMNS: Final = f"{_NEEDS_SEATS} AS seats_read, {_SEATS_COLUMNS}"
SEATS_JOIN: Final = (
    f" LEFT JOIN LATERAL machine.seats_facts($1, $2, CASE WHEN {_NEEDS_SEATS} THEN l.license_id END) AS s ON true"
)
SEATS_COLUMNS_OF_ALL: Final = f"true AS seats_read, {_SEATS_COLUMNS}"
SEATS_JOIN_OF_ALL: Final = " LEFT JOIN LATERAL machine.seats_facts($1, $2, l.license_id) AS s ON true"
"""Where somebody asks for a machine."""

FOUND_COLUMNS: Final = "h.held, x.machines"
# Postgres takes no function for its body where an argument has a query inside: OFFSET keeps the two apart.
FOUND_JOINS: Final = f"""
      LEFT JOIN LATERAL (
               SELECT ARRAY(SELECT decode(one.hash, 'hex') FROM unnest(string_to_array(i.hashes, ',')) AS one (hash)) AS hashes
               OFFSET 0
           ) AS a ON true
      LEFT JOIN LATERAL (
               SELECT json_agg(json_build_array(encode(f.fingerprint_hash, 'hex'), f.machine_id))::text AS held,
                      array_agg(f.machine_id) AS holders
                 FROM machine.fingerprint_facts($1, $2, l.license_id, a.hashes) AS f
           ) AS h ON true
      LEFT JOIN LATERAL (
               SELECT json_agg(json_build_array(
                          w.machine_id, m.license_id, m.user_id, m.deactivated, m.heartbeat_status, m.heartbeat_from,
                          m.died_at, m.offline_until, m.lease_epoch, b.last_heartbeat_at, b.lease_expires_at,
                          (SELECT json_agg(json_build_array(c.name, encode(c.fingerprint_hash, 'hex')) ORDER BY c.name)
                             FROM machine.component_facts($1, $2, m.machine_id) AS c),
                          u.subject_ref, encode(u.email_hash, 'hex'), u.banned))::text AS machines
                 FROM (SELECT i.machine_id WHERE i.machine_id <> '' AND l.license_id IS NOT NULL
                        UNION (SELECT o.machine_id FROM unnest(h.holders) AS o (machine_id)
                                GROUP BY o.machine_id ORDER BY count(*) DESC, o.machine_id COLLATE "C" LIMIT {MOST_MET})
                      ) AS w (machine_id)
                 LEFT JOIN LATERAL machine.machine_facts($1, $2, w.machine_id) AS m ON true
                 LEFT JOIN LATERAL machine.machine_beat($1, $2, m.machine_id) AS b ON true
                 LEFT JOIN LATERAL license.customer_facts($1, $2, m.user_id) AS u ON true
           ) AS x ON true
"""  # noqa: S608 - put together from constants


def terms_of(row: asyncpg.Record) -> MachineTerms:
    """What a row says of the policy."""
    limits = Limits(*(row[f"max_{name}"] for name in LIMIT_NAMES))
    return MachineTerms(NO_LIMITS if limits == NO_LIMITS else limits, *(row[name] for name in _TERMS))


def overrides_of(row: asyncpg.Record) -> Limits:
    """The license's own limits."""
    limits = Limits(*(row[f"max_{name}_override"] for name in LIMIT_NAMES))
    return NO_LIMITS if limits == NO_LIMITS else limits


def seats_of(prefix: str, row: asyncpg.Record) -> Iterator[Fact]:
    """The fact of a license's seats, where it was read."""
    if not row["seats_read"]:
        return
    key = f"seats:{prefix}{row['license_id']}"
    if row["seats_of"] is None:  # of a license that there is: not one of those that anybody can ask for at random
        yield Fact(key, NO_SEATS, 0)
        return
    value = SeatsValue(
        row["seats_machines"],
        row["seats_users"],
        row["seats_cores"],
        int(row["seats_memory_bytes"]),  # sums of bytes are numeric
        int(row["seats_disk_bytes"]),
        row["seats_processes"],
        row["seats_first_activated_at"],
    )
    yield Fact(key, value, SEATS_BYTES)


def found_of(prefix: str, asked: MachineAsked, row: asyncpg.Record) -> Iterator[Fact]:
    """The facts of the machine that was asked for, of what has its fingerprints, and of what there is not."""
    held: dict[str, list[str]] = {hashed.hex(): [] for hashed in asked.hashes}
    for hashed, machine_id in json.loads(row["held"] or "[]"):
        held[hashed].append(machine_id)
    for hashed, machine_ids in held.items():
        key = fingerprint_key(prefix, row["license_id"], bytes.fromhex(hashed))
        known = FingerprintValue(tuple(sorted(machine_ids))) if machine_ids else None
        yield Fact(key, known, HOLDER_BYTES * len(machine_ids))
    for machine in json.loads(row["machines"] or "[]"):
        yield from _machine(prefix, machine, terms_of(row), row["at"])


def _machine(prefix: str, columns: Sequence[Any], terms: MachineTerms, at: datetime) -> Iterator[Fact]:
    machine_id, license_id, user_id, deactivated, status = columns[:5]
    key = f"machine:{prefix}{machine_id}"
    if license_id is None:
        yield Fact(key, None, 0)
        return
    heartbeat_from, died_at, offline_until = (_time(one) for one in columns[5:8])
    last_heartbeat_at, lease_expires_at = (_time(one) for one in columns[9:11])
    value = MachineValue(
        license_id=intern(license_id),
        user_id=user_id,
        deactivated=deactivated,
        heartbeat_status=intern(status),
        heartbeat_from=heartbeat_from,
        died_at=died_at,
        offline_until=offline_until,
        lease_epoch=columns[8],
        last_heartbeat_at=last_heartbeat_at,
        lease_expires_at=lease_expires_at,
        passed=None,
    )
    yield Fact(key, value.read_at(at, terms), MACHINE_BYTES)
    parts = tuple((name, bytes.fromhex(hashed)) for name, hashed in columns[11] or ())
    yield Fact(f"component:{prefix}{machine_id}", ComponentsValue(parts), HOLDER_BYTES * len(parts))
    if user_id is not None:
        subject_ref, email_hash, banned = columns[12:15]
        email = None if email_hash is None else bytes.fromhex(email_hash)
        user = None if banned is None else CustomerValue(subject_ref, email, banned)
        yield Fact(f"customer:{prefix}{user_id}", user, _OF_USERS_BYTES)


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC)
