"""Reads of lists: a page in id order, with the token of the next."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from services.license.resources import Resources
from shared.db.pool import Transaction
from shared.rpc.context import CallContext
from shared.rpc.fields import page_limit

T = TypeVar("T")


class PageRequest(Protocol):
    """What every list request has."""

    @property
    def page_size(self) -> int: ...
    @property
    def page_token(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Items in id order, the token of the next page (empty on the last), and the time of the read."""

    items: Sequence[T]
    next_token: str
    now: datetime


async def page_of(
    resources: Resources,
    context: CallContext,
    request: PageRequest,
    query: str,
    *,
    read: Callable[[Transaction, str, int], Awaitable[Sequence[T]]],
    id_of: Callable[[T], str],
) -> Page[T]:
    """One page of `query`, which names the list and its filters: a token of another query is PAGE_TOKEN_INVALID."""
    tenant = context.principal.tenant
    after = resources.pages.read(tenant, query, request.page_token)
    limit = page_limit(request.page_size)
    async with resources.db.transaction(tenant, read_only=True) as tx:
        found = await read(tx, after, limit + 1)
    items = found[:limit]
    more = len(found) > limit
    return Page(items, resources.pages.make(tenant, query, id_of(items[-1])) if more else "", tx.now)
