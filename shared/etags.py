"""What a caller has read, and what there is now: a write that names an older state is refused. Pure."""

from __future__ import annotations

from shared.errors import DomainError, Reason


def refuse_stale(etag: str, revision: int, resource_id: str) -> None:
    """ETAG_MISMATCH unless the caller's etag, where given, is the resource's."""
    if etag and etag != etag_of(revision):
        raise DomainError(
            Reason.ETAG_MISMATCH, "the resource has changed since its etag was read", metadata={"id": resource_id}
        )


def etag_of(revision: int) -> str:
    return f"r{revision}"
