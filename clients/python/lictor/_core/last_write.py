"""The last write of a client: its reads ask to know of it, so that "bought, then checked" is never denied."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from google.protobuf.message import Message

from lictor.common.v1.common_pb2 import Consistency, RevisionToken

KEPT_S: Final = 60.0
"""Longer than any lease: after that every process knows of the write by itself."""


class LastWrite:
    """Remembers the token of the newest write, from the answer to it, and gives it to reads that name no consistency."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._token = ""
        self._at = 0.0

    def seen(self, answer: object) -> None:
        """Looks at an answer; that of a write has a token."""
        token = getattr(answer, "revision_token", None)
        if isinstance(token, RevisionToken) and token.token:
            self._token, self._at = token.token, self._clock()

    def asked(self, request: Message) -> None:
        """Lets a read ask for it, where it says nothing itself."""
        if not self._token or "consistency" not in request.DESCRIPTOR.fields_by_name or request.HasField("consistency"):
            return
        if self._clock() - self._at > KEPT_S:
            self._token = ""
            return
        consistency: Consistency = getattr(request, "consistency")  # noqa: B009 - requests that have it have no type in common
        consistency.at_least_as_fresh.revision_token.token = self._token
