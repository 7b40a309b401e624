"""Facts beside the record, in Redis: all of a load together, under what its decision begins with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from shared.facts.codec import decode, encode
from shared.freshness.memory import Fact
from shared.freshness.redis_tier import RedisTier
from shared.freshness.snapshot import Stamp
from shared.observe.logging import get_logger

_log = get_logger(__name__)


class RedisFacts:
    """What comes back may be old, and is never forged: the tail looks at its stamp."""

    def __init__(self, tier: RedisTier) -> None:
        self._tier = tier

    async def get(self, root: str, epoch: UUID) -> tuple[Stamp, Sequence[Fact]] | None:
        """What was put under the name of a decision; None where nothing is found in time."""
        body = await self._tier.get(root, epoch)
        if body is None:
            return None
        try:
            return decode(body)
        except (ValueError, TypeError, LookupError) as error:
            # Sealed by one of us, but of a version that knows other facts: as good as none.
            _log.warning("facts not understood", root=root.partition(":")[0], error=type(error).__name__)
            return None

    def put(self, root: str, stamp: Stamp, facts: Iterable[Fact]) -> None:
        """Stores what a load has read. Never waits and never fails."""
        self._tier.put(root, stamp.epoch, encode(stamp, facts))
