"""Heartbeats in a thread beside the block."""

from __future__ import annotations

import threading
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .errors import LictorError
from .requests_beats import Beating

if TYPE_CHECKING:
    from .sync_client import SyncRunner


class BackgroundBeats:
    """Heartbeats while the block runs; `lost` says whether what beats is none any more by now, and `error` why."""

    def __init__(self, runner: SyncRunner, beating: Beating[Any]) -> None:
        self._runner = runner
        self._beating = beating
        self._stop = threading.Event()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.error: BaseException | None = None

    @property
    def lost(self) -> bool:
        return self._over.is_set()

    def wait_lost(self, timeout_s: float | None = None) -> bool:
        """Waits until a heartbeat is refused; false where it is not after `timeout_s`."""
        return self._over.wait(timeout_s)

    def __enter__(self) -> Self:
        wait_s = self._beating.answered(self._runner.call(self._beating.call()))
        self._thread = threading.Thread(target=self._run, args=(wait_s,), name="heartbeats", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._beating.end is not None and not self.lost:
            with suppress(LictorError):  # it is dead in time
                self._runner.call(self._beating.end())

    def _run(self, wait_s: float) -> None:
        try:
            while not self._stop.wait(wait_s):
                try:
                    wait_s = self._beating.answered(self._runner.call(self._beating.call()))
                except LictorError as error:
                    wait_s = self._beating.failed(error)
        except BaseException as error:  # noqa: BLE001 - it is told by `error`
            self.error = error
            self._over.set()
