"""SPIFFE IDs in callers' certificates, and the patterns of workload bindings that cover them. Pure.

A pattern is a SPIFFE ID (`spiffe://prod.acme/ns/billing/api`), or one whose last segment is `*`, which stands for one or
more further segments (`spiffe://prod.acme/ns/billing/*`). Both are kept as their trust domain and the path after it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

SCHEME: Final = "spiffe://"
MAX_BYTES: Final = 2048
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT: Final = re.compile(r"(?!\.{1,2}\Z)[a-zA-Z0-9._-]+")
_STAR: Final = "*"


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """A workload's name. `path` begins with a slash and has at least one segment."""

    trust_domain: str
    path: str

    def covering_paths(self) -> tuple[str, ...]:
        """The paths of all patterns in its trust domain that cover it; the one that decides comes first."""
        parts = self.path.split("/")
        stars = ("/".join((*parts[:n], _STAR)) for n in range(len(parts) - 1, 0, -1))
        return (self.path, *stars)


@dataclass(frozen=True, slots=True)
class SpiffeIdPattern:
    """Whom a binding lets in."""

    trust_domain: str
    path: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.trust_domain}{self.path}"


def parse_id(text: str) -> SpiffeId | None:
    """The SPIFFE ID that `text` is; None for anything else, a trust domain without a path included."""
    parts = _split(text)
    if parts is None or not all(_SEGMENT.fullmatch(segment) for segment in parts[1]):
        return None
    return SpiffeId(parts[0], "/" + "/".join(parts[1]))


def parse_pattern(text: str) -> SpiffeIdPattern | None:
    """The pattern that `text` is; None for anything else."""
    parts = _split(text)
    if parts is None:
        return None
    trust_domain, (*segments, last) = parts
    if not all(_SEGMENT.fullmatch(segment) for segment in segments):
        return None
    if last != _STAR and not _SEGMENT.fullmatch(last):
        return None
    return SpiffeIdPattern(trust_domain, "/" + "/".join((*segments, last)))


def _split(text: str) -> tuple[str, list[str]] | None:
    """Trust domain and segments, which may still be anything; None where there is not one segment."""
    if len(text.encode(errors="replace")) > MAX_BYTES or not text.startswith(SCHEME):
        return None
    trust_domain, slash, path = text.removeprefix(SCHEME).partition("/")
    if not slash or not _TRUST_DOMAIN.fullmatch(trust_domain):
        return None
    return trust_domain, path.split("/")
