"""How memory moves under a steady load. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import linear_regression
from typing import Final

KIB: Final = 1024


@dataclass(frozen=True, slots=True)
class Memory:
    """One look at the servers' processes."""

    at_s: float
    """Since the load began."""
    rss_bytes: Mapping[int, int]
    """By process id."""
    broken: int
    """Streams of answers that clients had left by then."""


@dataclass(frozen=True, slots=True)
class Trend:
    """How one process's resident memory moved, by the line that lies closest to all the looks at it."""

    start_kib: float
    """At the first look, before any load."""
    settled_kib: float
    """At the first look that counts."""
    end_kib: float
    kib_per_min: float
    bytes_per_broken: float | None
    """None where no stream was broken."""


def trend(looks: Sequence[Memory], pid: int, after_s: float) -> Trend:
    """The trend of a process from `after_s` on. ValueError when fewer than two looks are left."""
    counted = [look for look in looks if look.at_s >= after_s]
    if len(counted) < 2:
        raise ValueError(f"only {len(counted)} looks at the memory after {after_s:.0f} s: soak for longer")
    rss = [look.rss_bytes[pid] for look in counted]
    by_time = linear_regression([look.at_s for look in counted], rss).slope
    broken = [look.broken for look in counted]
    return Trend(
        start_kib=looks[0].rss_bytes[pid] / KIB,
        settled_kib=rss[0] / KIB,
        end_kib=rss[-1] / KIB,
        kib_per_min=by_time * 60 / KIB,
        bytes_per_broken=linear_regression(broken, rss).slope if broken[-1] > broken[0] else None,
    )
