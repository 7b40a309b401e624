"""Which transactions changed which fact since the base: what decides whether a fact that was read earlier may be used."""

from __future__ import annotations

from shared.freshness.snapshot import Snapshot


class ChangeMap:
    """For each key every transaction that changed it, and that the base does not see.

    Not the latest alone: two rows may share a key, and the transaction that began first may commit last.
    """

    def __init__(self) -> None:
        self._xids: dict[str, tuple[int, ...]] = {}
        self._entries = 0

    def __len__(self) -> int:
        """How many transactions are kept, over all keys."""
        return self._entries

    def add(self, key: str, xid: int) -> None:
        """Says that a transaction changed a fact. Saying it twice says nothing more."""
        known = self._xids.get(key, ())
        if xid not in known:
            self._xids[key] = (*known, xid)
            self._entries += 1

    def allows(self, key: str, read_at: Snapshot) -> bool:
        """Whether what was read then saw all changes of the fact that are known."""
        xids = self._xids.get(key)
        return xids is None or all(read_at.sees(xid) for xid in xids)

    def keys(self) -> list[str]:
        """All keys, as they are now."""
        return list(self._xids)

    def forget(self, key: str, base: Snapshot) -> None:
        """Leaves out the changes of a fact that the base sees: whatever is let in covers the base."""
        xids = self._xids.get(key, ())
        left = tuple(xid for xid in xids if not base.sees(xid))
        self._entries -= len(xids) - len(left)
        if left:
            self._xids[key] = left
        else:
            self._xids.pop(key, None)

    def clear(self) -> dict[str, tuple[int, ...]]:
        """Forgets everything: only with a new base. Returns what was known, which the caller lets go."""
        known, self._xids = self._xids, {}
        self._entries = 0
        return known
