"""Page tokens and revision tokens: opaque, ours, and of one place only."""

from __future__ import annotations

import base64
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.crypto.page_tokens import PageTokens
from shared.crypto.root_secret import RootSecret
from shared.errors import DomainError, Reason
from shared.freshness.token import Revision, RevisionTokens
from shared.tenancy import Mode, Tenant

OLD, NEW = (1, bytes(range(32))), (2, bytes(range(1, 33)))
PAGES = PageTokens(RootSecret((NEW, OLD)))
HERE = Tenant("acc_1", Mode.TEST)
LAST = "lic_0199f2aa"
TOKEN = PAGES.make(HERE, "licenses|", LAST)


def refused(token: str, tenant: Tenant = HERE, query: str = "licenses|", pages: PageTokens = PAGES) -> bool:
    with pytest.raises(DomainError) as refusal:
        pages.read(tenant, query, token)
    return refusal.value.reason is Reason.PAGE_TOKEN_INVALID


@given(st.text(min_size=1), st.text(), st.text(), st.sampled_from(Mode))
def test_a_token_leads_to_where_it_was_made(last_id: str, query: str, account_id: str, mode: Mode) -> None:
    tenant = Tenant(account_id, mode)
    assert PAGES.read(tenant, query, PAGES.make(tenant, query, last_id)) == last_id


def test_no_token_is_the_first_page() -> None:
    assert PAGES.read(HERE, "licenses|", "") == ""


def test_every_changed_bit_is_noticed() -> None:
    raw = base64.urlsafe_b64decode(TOKEN + "=" * (-len(TOKEN) % 4))
    for place in range(len(raw)):
        for bit in range(8):
            changed = bytearray(raw)
            changed[place] ^= 1 << bit
            assert refused(base64.urlsafe_b64encode(bytes(changed)).decode().rstrip("=")), (place, bit)


def test_every_cut_is_noticed() -> None:
    for length in range(1, len(TOKEN)):
        assert refused(TOKEN[:length])
    assert refused(TOKEN + "AAAA")
    assert refused(TOKEN * 2)


@given(st.text(min_size=1))
def test_any_other_text_is_refused(text: str) -> None:
    assert refused(text)


@pytest.mark.parametrize(
    "tenant", [Tenant("acc_1", Mode.LIVE), Tenant("acc_2", Mode.TEST), Tenant("acc_1|TEST", Mode.TEST)]
)
def test_a_token_is_of_one_tenant(tenant: Tenant) -> None:
    assert refused(TOKEN, tenant)


@pytest.mark.parametrize("query", ["", "licenses", "licenses|x", "policies|", "Licenses|"])
def test_a_token_is_of_one_query(query: str) -> None:
    assert refused(TOKEN, query=query)


def test_a_token_outlives_a_rotation_and_not_the_end_of_its_version() -> None:
    before = PageTokens(RootSecret((OLD,))).make(HERE, "licenses|", LAST)
    assert PAGES.read(HERE, "licenses|", before) == LAST
    assert refused(before, pages=PageTokens(RootSecret((NEW,))))
    other_secret = PageTokens(RootSecret(((2, bytes(32)),)))
    assert refused(TOKEN, pages=other_secret)


def test_a_token_fits_its_field() -> None:
    longest = PAGES.make(HERE, "licenses|" + "x" * 1000, "l" * 64)
    assert len(longest) <= 512
    assert set(longest) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


U64 = st.integers(0, 2**64 - 1)


@given(U64, st.uuids(), U64)
def test_a_revision_token_has_one_length(system_id: int, epoch: UUID, xid: int) -> None:
    token = RevisionTokens(RootSecret((NEW, OLD))).make(Revision(system_id, epoch, xid))
    assert len(token) == 67
    raw = base64.urlsafe_b64decode(token + "=")
    assert len(raw) == 2 + 8 + 16 + 8 + 16
    assert raw[:2] == bytes((1, 2))


def test_a_revision_token_tells_every_part_apart() -> None:
    tokens = RevisionTokens(RootSecret((NEW, OLD)))
    epoch, other = UUID(int=1), UUID(int=2)
    made = [tokens.make(Revision(*parts)) for parts in ((1, epoch, 1), (2, epoch, 1), (1, other, 1), (1, epoch, 2))]
    assert len({token[-22:] for token in made}) == 4
    assert tokens.make(Revision(1, epoch, 1)) == made[0]
    assert RevisionTokens(RootSecret(((2, bytes(32)),))).make(Revision(1, epoch, 1))[-22:] != made[0][-22:]
