"""Reads of lists: a page in id order, with the token of the next."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, Protocol, TypeVar

from google.protobuf.message import Message

from shared.crypto.page_tokens import PageTokens
from shared.db.pool import Database, Transaction
from shared.rpc.context import CallContext
from shared.rpc.fields import page_limit

T = TypeVar("T")
M = TypeVar("M", bound=Message)

MAX_PAGE_BYTES: Final = 3 * 1024 * 1024 - 4096
"""An answer stays under 3 MiB: clients refuse 4 MiB by default, and what is around the items takes a little too."""
ITEM_FRAME_BYTES: Final = 6
"""The tag and the length before an item."""
ROWS_AT_ONCE: Final = 250
"""How many rows are read at a time: more would be read in vain where they are large."""


class PageRequest(Protocol):
    """What every list request has."""

    @property
    def page_size(self) -> int: ...
    @property
    def page_token(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Page(Generic[M]):
    """Messages in id order, and the token of the next page, empty on the last."""

    items: Sequence[M]
    next_token: str


async def page_of(
    db: Database,
    pages: PageTokens,
    context: CallContext,
    request: PageRequest,
    query: str,
    *,
    read: Callable[[Transaction, str, int], Awaitable[Sequence[T]]],
    id_of: Callable[[T], str],
    rendered: Callable[[T, datetime], M],
) -> Page[M]:
    """One page of `query`, which names the list and its filters: a token of another query is PAGE_TOKEN_INVALID.

    It ends early where it would have more bytes than callers take, but never without an item.
    """
    tenant = context.principal.tenant
    after = pages.read(tenant, query, request.page_token)
    left = page_limit(request.page_size)
    items: list[M] = []
    room = MAX_PAGE_BYTES
    async with db.transaction(tenant, read_only=True) as tx:
        while True:
            wanted = min(left, ROWS_AT_ONCE)
            found = await read(tx, after, wanted + 1)
            for row in found[:wanted]:
                item = rendered(row, tx.now)
                room -= item.ByteSize() + ITEM_FRAME_BYTES
                if room < 0 and items:
                    return Page(items, pages.make(tenant, query, after))
                items.append(item)
                after = id_of(row)
            left -= wanted
            if len(found) <= wanted:
                return Page(items, "")
            if not left:
                return Page(items, pages.make(tenant, query, after))
