"""What happened to a license, as its account reads it: every event once, in order, also after the license is gone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp
from lictor import LictorError, NotFound
from lictor.common.v1.common_pb2 import Mode
from lictor.common.v1.event_pb2 import Event
from lictor.license.v1.license_service_pb2 import ListLicenseEventsRequest

from tests.helpers.builders import events as stored_events
from tests.helpers.builders import key_with, open_shop, refused, send, unchanged
from tests.helpers.suite import Suite, World


async def told(world: World, license_id: str, **narrowed: object) -> list[Event]:
    return [event async for event in world.test.licenses.events(license_id, **narrowed)]  # pyright: ignore[reportArgumentType]


async def lived(world: World) -> str:
    """A license with a life: seven events."""
    shop = await open_shop(world.test)
    license_id = (await shop.issue()).license.license_id
    mine = world.test.licenses
    await mine.suspend(license_id, reason="unpaid")
    await mine.reinstate(license_id, reason="paid")
    await mine.renew(license_id)
    await mine.update(license_id, display_name="Ada's")
    await mine.rotate_key(license_id, reason="leaked")
    await mine.revoke(license_id, reason="refund")
    return license_id


LIFE = [
    "license.created", "license.suspended", "license.reinstated", "license.renewed", "license.updated",
    "license.key.rotated", "license.revoked",
]  # fmt: skip


async def test_the_events_of_a_license_are_told_oldest_first_as_they_are_stored(suite: Suite, world: World) -> None:
    license_id, who = await lived(world), await world.test.whoami()
    found = await told(world, license_id)
    assert [event.type for event in found] == LIFE
    assert [event.subject_seq for event in found] == list(range(1, 8))
    assert [event.reason for event in found] == ["", "unpaid", "paid", "", "", "leaked", "refund"]
    for event, row in zip(found, await stored_events(suite, license_id), strict=True):
        assert (event.id, event.schema_version, event.source) == (row["event_id"], 1, "api")
        assert (event.account_id, event.mode, event.subject) == (world.account_id, Mode.TEST, license_id)
        assert event.occurred_at.ToDatetime(tzinfo=UTC) == row["occurred_at"]
        assert event.actor == who.key_id
        assert MessageToDict(event.data) == row["data"]
    assert found[-1].data["status"] == "revoked"
    assert found[-1].data["status_reason"] == "refund"


async def test_pages_hold_every_event_once_while_others_are_added(suite: Suite, world: World) -> None:
    license_id = await lived(world)
    seen: list[int] = []
    token = ""
    while True:
        page = await world.test.licenses.events_page(license_id, page_size=2, page_token=token)
        assert len(page.events) <= 2
        seen += [event.subject_seq for event in page.events]
        if not (token := page.next_page_token):
            break
        if len(seen) == 2:
            await world.test.licenses.reveal_key(license_id)
    assert seen == list(range(1, 9))


async def test_types_and_aliases_and_times_narrow(world: World) -> None:
    license_id = await lived(world)
    every = await told(world, license_id)
    assert [e.type for e in await told(world, license_id, types=["license.renewed", "license.suspended"])] == [
        "license.suspended", "license.renewed",
    ]  # fmt: skip
    assert await told(world, license_id, types=["license.banned"]) == []
    second, fourth = (every[n].occurred_at.ToDatetime(tzinfo=UTC) for n in (1, 3))
    between = await told(world, license_id, start_time=second, end_time=fourth)
    assert [event.subject_seq for event in between] == [2, 3], "the start is in, the end is out"
    assert await told(world, license_id, start_time=datetime.now(UTC) + timedelta(hours=1)) == []
    both = await told(world, license_id, types=["license.revoked"], end_time=fourth)
    assert both == []


async def test_a_deleted_license_keeps_its_events(world: World) -> None:
    license_id = await lived(world)
    await world.test.licenses.delete(license_id, reason="asked to")
    with pytest.raises(NotFound):
        await world.test.licenses.get(license_id)
    found = await told(world, license_id)
    assert [event.type for event in found] == [*LIFE, "license.deleted"]
    assert found[-1].reason == "asked to"


async def test_what_was_never_a_license_of_ours_is_not_found(suite: Suite, world: World) -> None:
    license_id = await lived(world)
    shop = await open_shop(world.test, code="OTHER")
    key = await world.test.whoami()
    async with suite.world() as stranger, unchanged(suite, world):
        for client, wanted in (
            (world.test, "lic_unknown"),
            (world.live, license_id),
            (stranger.test, license_id),
            (world.test, shop.policy.policy_id),
            (world.test, shop.product.product_id),
            (world.test, key.key_id),
            (world.test, world.account_id),
        ):
            with pytest.raises(NotFound) as missing:
                await client.licenses.events_page(wanted)
            assert missing.value.reason == "LICENSE_NOT_FOUND"


async def test_a_scope_to_read_licenses_is_enough_and_needed(suite: Suite, world: World) -> None:
    license_id = await lived(world)
    for scope, fine in (("licenses:read", True), ("licenses:write", False), ("licenses:validate", False)):
        async with suite.client(await key_with(world.test, scope)) as client:
            if fine:
                assert len((await client.licenses.events_page(license_id)).events) == len(LIFE)
            else:
                with pytest.raises(LictorError, match="CALLER_NOT_ALLOWED"):
                    await client.licenses.events_page(license_id)


async def test_a_page_token_belongs_to_one_license_and_its_filters(suite: Suite, world: World) -> None:
    license_id, other_id = (
        await lived(world),
        (await (await open_shop(world.test, code="OTHER")).issue()).license.license_id,
    )
    first = await send(suite, ListLicenseEventsRequest(license_id=license_id, page_size=1), world.test_key)
    token = first.next_page_token
    for request in (
        ListLicenseEventsRequest(license_id=other_id, page_token=token),
        ListLicenseEventsRequest(license_id=license_id, page_token=token, types=["license.created"]),
        ListLicenseEventsRequest(license_id=license_id, page_token=token, start_time=Timestamp(seconds=1)),
        ListLicenseEventsRequest(license_id=license_id, page_token=token[:-1] + "!"),
    ):
        error = await refused(suite, request, world.test_key)
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")


@pytest.mark.parametrize(("request_", "violations"), [
    (ListLicenseEventsRequest(), [("license_id", "REQUIRED")]),
    (ListLicenseEventsRequest(license_id="l" * 65), [("license_id", "LENGTH_OUT_OF_RANGE")]),
    (ListLicenseEventsRequest(license_id="lic_1", page_size=-1), [("page_size", "OUT_OF_RANGE")]),
    (
        ListLicenseEventsRequest(license_id="lic_1", types=["license.created", "license.exploded", "policy.created", ""]),
        [(f"types[{n}]", "EVENT_TYPE_UNKNOWN") for n in (1, 2, 3)],
    ),
    (ListLicenseEventsRequest(license_id="lic_1", types=["license.created"] * 33), [("types", "TOO_MANY")]),
    (
        ListLicenseEventsRequest(
            license_id="lic_1", start_time=Timestamp(seconds=-(10**12)), end_time=Timestamp(nanos=-1)
        ),
        [("start_time", "TIMESTAMP_INVALID"), ("end_time", "TIMESTAMP_INVALID")],
    ),
])  # fmt: skip
async def test_bad_input(
    suite: Suite, world: World, request_: ListLicenseEventsRequest, violations: list[tuple[str, str]]
) -> None:
    async with unchanged(suite, world):
        error = await refused(suite, request_, world.test_key)
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert error.violations == violations
