"""Snapshots for property tests, and what each sees, by a model."""

from __future__ import annotations

from hypothesis import strategies as st

from shared.freshness.snapshot import Snapshot

LOW, HIGH = 3, 24


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """As Postgres makes them: all in progress are below the end, right below which one has ended."""
    xmax = draw(st.integers(LOW, HIGH))
    in_progress = draw(st.frozensets(st.integers(LOW, xmax - 2))) if xmax - 2 >= LOW else frozenset[int]()
    return Snapshot(min(in_progress, default=xmax), xmax, in_progress)


def seen(snapshot: Snapshot) -> set[int]:
    return {xid for xid in range(HIGH + 2) if xid < snapshot.xmax and xid not in snapshot.in_progress}
