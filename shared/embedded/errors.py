"""What the embedded servers say when they cannot run."""

from __future__ import annotations


class EmbeddedError(RuntimeError):
    """A failure whose message is meant for the person at the terminal."""
