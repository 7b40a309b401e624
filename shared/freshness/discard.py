"""Large tables let go in slices: to free a hundred thousand objects at once takes a tenth of a second of the loop."""

from __future__ import annotations

import asyncio
from typing import Any, Final

SLICE: Final = 2000


class Discard:
    """Tables that nobody reads any more."""

    def __init__(self) -> None:
        self._tables: list[dict[Any, Any]] = []
        self._freeing = False

    def __bool__(self) -> bool:
        """Whether there is something to let go, and nobody at it."""
        return bool(self._tables) and not self._freeing

    def add(self, *tables: dict[Any, Any]) -> None:
        """Takes over tables; whoever had them keeps no reference."""
        self._tables += tables

    async def free(self) -> None:
        """Lets all of it go, and others have their turn in between."""
        self._freeing = True
        try:
            while self._tables:
                table = self._tables[-1]
                for _ in range(min(SLICE, len(table))):
                    table.popitem()
                if not table:
                    self._tables.pop()
                await asyncio.sleep(0)
        finally:
            self._freeing = False
