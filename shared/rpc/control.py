"""What a process that serves and the one that started it say to each other, over a socket pair.

Its end is as telling as its words: neither side outlives the other.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

CONTROL_FD: Final = "_LICTOR_CONTROL_FD"
"""The environment variable that tells a process that serves which descriptor its end is. No setting."""

CONTROL_FOLDER: Final = "_LICTOR_CONTROL_FOLDER"
"""Likewise, where Envoy's files are: the inside removes them when whoever made them is gone."""


class Word(StrEnum):
    """What can be said. The inside is the process that serves, the outside the one that started it."""

    LISTENING = "listening"
    """To the inside: Envoy takes calls, on the port that follows; a second one is where it takes JSON."""
    STOP = "stop"
    """To the inside: leave in order; said again: hurry."""
    UP = "up"
    """To the outside: it listens. `Up` follows."""
    READY = "ready"
    """To the outside: calls can be served."""
    UNREADY = "unready"
    """To the outside: calls cannot be served."""
    DRAIN = "drain"
    """To the outside: close Envoy's listeners and send its connections away."""
    GONE = "gone"
    """To the inside: that is done, and no connection is left."""
    FAILED = "failed"
    """To the outside: serving ended for the reason that follows."""
    LEFT = "left"
    """To the outside: the last call is answered and everything is closed."""


@dataclass(frozen=True, slots=True)
class Up:
    """What a process that serves tells of itself: where its ops listener is, and which services it has."""

    ops_addr: str
    services: Sequence[str]

    def said(self) -> str:
        """As it follows the word."""
        return json.dumps([self.ops_addr, *self.services])

    @classmethod
    def heard(cls, more: str) -> Up:
        """From what followed the word."""
        ops_addr, *services = json.loads(more)
        return cls(ops_addr, services)


class Control:
    """One end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Control:
        """Takes an end of the pair."""
        return cls(*await asyncio.open_unix_connection(sock=end))

    def say(self, word: Word, more: str | int = "") -> None:
        """Says a word; to nobody, when the other side is gone."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps([word.value, str(more)]).encode() + b"\n")

    async def hear(self) -> tuple[Word, str] | None:
        """The next word with what follows it; None when the other side is gone."""
        try:
            line = await self._reader.readline()
        except OSError:
            return None
        if not line.endswith(b"\n"):
            return None
        word, more = json.loads(line)
        return Word(word), more

    def close(self) -> None:
        self._writer.close()
