"""Lists iterate over all pages, lazily; `page` gives one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from lictor import AsyncLictor, Lictor
from lictor.license.v1.license_service_pb2 import License, LicenseStatus, ListLicensesRequest, ListLicensesResponse

from tests.service.test_client_outside import Outside, running_outside

PAGES = {"": ("a", "2"), "2": ("b", "3"), "3": ("c", "")}


def _answer(request: bytes) -> ListLicensesResponse:
    letter, following = PAGES[ListLicensesRequest.FromString(request).page_token]
    found = [License(license_id=f"lic_{letter}{number}") for number in range(2)]
    return ListLicensesResponse(licenses=found, next_page_token=following)


ALL = ["lic_a0", "lic_a1", "lic_b0", "lic_b1", "lic_c0", "lic_c1"]


@pytest.fixture(name="outside")
async def _outside() -> AsyncIterator[Outside]:
    async with running_outside() as outside:
        outside.answers["ListLicenses"] = _answer
        yield outside


async def test_async_iteration_crosses_pages_with_the_same_filters(outside: Outside) -> None:
    async with AsyncLictor(api_key="sk_test_x", endpoint=outside.endpoint) as client:
        found = [item.license_id async for item in client.licenses.list(status="suspended", page_size=2)]
    assert found == ALL
    for request in outside.requests(ListLicensesRequest):
        assert (request.status, request.page_size) == (LicenseStatus.suspended, 2)


async def test_sync_iteration_asks_only_for_what_is_used(outside: Outside) -> None:
    def take_three() -> tuple[list[str], int]:
        with Lictor(api_key="sk_test_x", endpoint=outside.endpoint) as client:
            found = client.licenses.list()
            first = [next(found).license_id for _ in range(3)]
            asked = len(outside.seen)
            return first + [item.license_id for item in found], asked

    found, asked = await asyncio.to_thread(take_three)
    assert found == ALL
    assert asked == 2


async def test_one_page(outside: Outside) -> None:
    async with AsyncLictor(api_key="sk_test_x", endpoint=outside.endpoint) as client:
        page = await client.licenses.page(page_token="2")
        rest = [item.license_id async for item in client.licenses.list(page_token=page.next_page_token)]
    assert [item.license_id for item in page.licenses] == ["lic_b0", "lic_b1"]
    assert rest == ["lic_c0", "lic_c1"]


async def test_a_bad_filter_is_refused_before_the_first_page(outside: Outside) -> None:
    client = AsyncLictor(api_key="sk_test_x", endpoint=outside.endpoint)
    with pytest.raises(ValueError, match="active, suspended"):
        client.licenses.list(status="asleep")
    assert outside.seen == []
