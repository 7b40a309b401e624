"""L2: facts in Redis, for processes that have just started and for what they do not hold. Only ever for speed.

Whatever fails is a miss. A body comes back as it was put under the same root and epoch, by a process with the same root
secret; it need not be the last one that was put. Whoever admits it looks at its stamp.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final
from uuid import UUID

from shared.clock import Clock
from shared.crypto.root_secret import RootSecret
from shared.freshness.redis_gets import REPLY_LIMIT_BYTES, Gets
from shared.freshness.redis_hints import Hints
from shared.freshness.redis_line import Line, connection_to
from shared.freshness.redis_metrics import Get, Put, TierMetrics
from shared.freshness.redis_puts import Puts
from shared.freshness.sealed_entry import Sealer

BUDGET_S: Final = 0.030
"""What Redis may take before it is as good as gone: a load from the record takes less."""
_SHORT_REPLY_BYTES: Final = 64 * 1024


def read_password(path: Path) -> str:
    """The one line of a password file. Raises OSError, and ValueError when it is not one line."""
    lines = path.read_text().splitlines()
    if len(lines) != 1 or not lines[0]:
        raise ValueError(f"{path}: it must hold one line, the password")
    return lines[0]


class RedisTier:
    """Belongs to one event loop. It connects when it is first used; only `listen` keeps a task while nothing is asked."""

    def __init__(
        self,
        url: str,
        root: RootSecret,
        clock: Clock,
        metrics: TierMetrics,
        *,
        password_file: Path | None = None,
        budget_s: float = BUDGET_S,
    ) -> None:
        """RedisUrlError when `url` is no address of a Redis; OSError or ValueError for a password file that is none."""
        password = None if password_file is None else read_password(password_file)
        sealer = Sealer(root)
        self._metrics = metrics
        # Gets do not wait behind puts, and each has a breaker of its own: a replica answers gets and refuses puts.
        self._gets = Gets(
            Line("get", connection_to(url, password, REPLY_LIMIT_BYTES), clock), sealer, metrics, budget_s
        )
        self._puts = Puts(
            Line("put", connection_to(url, password, _SHORT_REPLY_BYTES), clock), sealer, metrics, budget_s
        )
        self._hints = Hints(connection_to(url, password, _SHORT_REPLY_BYTES), sealer.hint_channel())
        self._closed = False

    async def get(self, root: str, epoch: UUID) -> bytes | None:
        """What was put for a decision root in this epoch; None where there is nothing, or whatever fails: within the
        budget, or twice that behind another question.

        All gets of one turn of the loop go as one MGET.
        """
        if self._closed:
            self._metrics.gets[Get.SKIPPED].inc()
            return None
        return await self._gets.get(root, epoch)

    def put(self, root: str, epoch: UUID, body: bytes) -> None:
        """Stores a body for 15 minutes, at some later time or not at all. Never waits, never raises."""
        if self._closed:
            self._metrics.puts[Put.DROPPED].inc()
        else:
            self._puts.put(root, epoch, body)

    async def sent(self) -> None:
        """Waits until what was put is stored or lost: for who wants to look."""
        await self._puts.sent()

    def publish_hint(self) -> None:
        """Wakes the other processes, at some later time or not at all. Never waits, never raises."""
        if not self._closed:
            self._puts.publish_hint()

    def listen(self, callback: Callable[[], None]) -> None:
        """Calls `callback` for hints from now on, this process's own among them. It must be quick, and is set once."""

        def heard() -> None:
            self._metrics.hints.inc()
            callback()

        self._hints.listen(heard)

    async def close(self) -> None:
        """Who waits gets a miss, what was not sent yet is lost, and nothing is asked any more."""
        self._closed = True
        await self._hints.close()
        await self._gets.close()
        await self._puts.close()
