"""`lictor licenses export`: every license of an account and mode, a line each, as `lictor licenses import` takes them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final
from uuid import uuid4

from google.protobuf.json_format import MessageToDict
from lictor import AsyncLictor, LictorError
from lictor.common.v1.common_pb2 import Mode
from lictor.license.v1 import license_service_pb2 as pb

from services.transfer.outputs import replace_file
from services.transfer.patience import patiently
from services.transfer.progress import Progress

PAGE_ITEMS: Final = 500
REVEALS_AT_ONCE: Final = 8
_NOT_STORED: Final = "KEY_NOT_STORED"
_LEFT_OUT: Final = frozenset({pb.LicenseStatus.active, pb.LicenseStatus.expired})
"""States that an import finds out by itself."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What was asked for. `file` None: standard output."""

    file: Path | None
    with_keys: bool = False
    patience_s: float = 300.0


@dataclass(slots=True)
class Exported:
    """What came of an export."""

    licenses: int = 0
    without_key: int = 0
    """Of them, those whose key is not stored, where keys were asked for."""
    unnamed_policies: int = 0
    """Policies without an external_id, which another account could not tell."""
    per_s: float = 0.0


class _Names:
    """What licenses name by id, as another account can tell it."""

    def __init__(self, client: AsyncLictor, patience_s: float) -> None:
        self._client, self._patience_s = client, patience_s
        self._policies: dict[str, str] = {}
        self._tiers: dict[str, str] = {}
        self._customers: dict[str, pb.CustomerRef] = {}

    async def load_customers(self) -> None:
        """All there are, in pages: asking for each would take a call a license."""
        token = ""
        while True:
            page = await patiently(
                lambda token=token: self._client.customers.page(page_size=1000, page_token=token), self._patience_s
            )
            self._customers.update((found.customer_id, _ref(found)) for found in page.customers)
            token = page.next_page_token
            if not token:
                return

    @property
    def unnamed_policies(self) -> int:
        return sum(not name for name in self._policies.values())

    async def policy(self, policy_id: str) -> str:
        """Its external_id; empty where it has none."""
        if policy_id not in self._policies:
            found = await patiently(lambda: self._client.policies.get(policy_id), self._patience_s)
            self._policies[policy_id] = found.external_id
        return self._policies[policy_id]

    async def tier(self, tier_id: str) -> str:
        if tier_id not in self._tiers:
            found = await patiently(lambda: self._client.tiers.get(tier_id), self._patience_s)
            self._tiers[tier_id] = found.slug
        return self._tiers[tier_id]

    async def customer(self, customer_id: str) -> pb.CustomerRef:
        if customer_id not in self._customers:
            found = await patiently(lambda: self._client.customers.get(customer_id), self._patience_s)
            self._customers[customer_id] = _ref(found)
        return self._customers[customer_id]


def _ref(customer: Any) -> pb.CustomerRef:
    if customer.email:
        return pb.CustomerRef(email=customer.email, display_name=customer.display_name)
    return pb.CustomerRef(subject_ref=customer.subject_ref, display_name=customer.display_name)


class _Part:
    """The file while it is made: `FILE.part`, and beside it how far that is good."""

    def __init__(self, file: Path, of: dict[str, Any]) -> None:
        self._file, self._of = file, of
        self._part = file.with_name(file.name + ".part")
        self._state = file.with_name(file.name + ".part.state")
        self.token, self.count, good_bytes = "", 0, 0
        try:
            state = json.loads(self._state.read_text())
            if all(state.get(name) == value for name, value in of.items()) and self._part.exists():
                self.token, self.count, good_bytes = str(state["token"]), int(state["count"]), int(state["bytes"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # none, or one that was never finished: from the beginning
        descriptor = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, 0o600)
        os.ftruncate(descriptor, good_bytes)
        self._out: IO[bytes] = os.fdopen(descriptor, "r+b")
        self._out.seek(good_bytes)

    def write(self, lines: Sequence[bytes], next_token: str) -> None:
        """A page, on disk before what says that it is."""
        self._out.write(b"".join(line + b"\n" for line in lines))
        self._out.flush()
        os.fsync(self._out.fileno())
        self.count += len(lines)
        state = {**self._of, "token": next_token, "count": self.count, "bytes": self._out.tell()}
        replace_file(self._state, [json.dumps(state).encode()])

    def finish(self) -> None:
        self._out.close()
        self._part.replace(self._file)
        self._state.unlink(missing_ok=True)


async def export_file(client: AsyncLictor, options: ExportOptions) -> Exported:
    """Runs, or goes on where a run before was stopped. LictorError, OSError."""
    who = await patiently(client.whoami, options.patience_s)
    of = {"account_id": who.account_id, "mode": Mode.Kind.Name(who.mode), "with_keys": options.with_keys}
    part = None if options.file is None else _Part(options.file, of)
    names, done = _Names(client, options.patience_s), Exported()
    await names.load_customers()
    token = "" if part is None else part.token
    done.licenses = 0 if part is None else part.count
    progress = Progress("licenses", 0, done=done.licenses)
    while True:
        page = await patiently(
            lambda token=token: client.licenses.page(page_size=PAGE_ITEMS, page_token=token), options.patience_s
        )
        keys = await _reveal(client, page.licenses, options) if options.with_keys else {}
        items = [await _item(found, names, keys.get(found.license_id, "")) for found in page.licenses]
        lines = [_line(item) for item in items]
        done.without_key += sum(options.with_keys and not item.key for item in items)
        if part is None:
            sys.stdout.buffer.writelines(line + b"\n" for line in lines)
        else:
            part.write(lines, page.next_page_token)
        done.licenses += len(lines)
        progress.add(len(lines))
        token = page.next_page_token
        if not token:
            break
    if part is not None:
        part.finish()
    progress.end()
    done.unnamed_policies, done.per_s = names.unnamed_policies, progress.per_s
    return done


def _line(item: pb.LicenseImport) -> bytes:
    said = MessageToDict(item, preserving_proto_field_name=True)
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()


async def _item(found: pb.License, names: _Names, key: str) -> pb.LicenseImport:
    """A license as an import takes it."""
    policy = await names.policy(found.policy_id)
    item = pb.LicenseImport(
        policy_id="" if policy else found.policy_id,
        policy_external_id=policy,
        key=key,
        external_id=found.external_id,
        customer=await names.customer(found.customer_id) if found.customer_id else None,
        tier=await names.tier(found.tier_id) if found.tier_id else "",
        display_name=found.display_name,
        # What has no end because its duration waits for a first use goes on waiting where it comes to.
        perpetual=found.expiry_anchored and not found.HasField("expire_time"),
        uses=found.uses,
        status=pb.LicenseStatus.STATUS_UNSPECIFIED if found.status in _LEFT_OUT else found.status,
        status_reason="" if found.status in _LEFT_OUT else found.status_reason,
        create_time=found.create_time,
        labels=found.labels,
    )
    for name in ("start_time", "expire_time", "overrides", "metadata"):
        if found.HasField(name):
            getattr(item, name).CopyFrom(getattr(found, name))
    return item


async def _reveal(client: AsyncLictor, licenses: Sequence[pb.License], options: ExportOptions) -> dict[str, str]:
    """The keys by license; none of those whose key is not stored."""
    gate = asyncio.Semaphore(REVEALS_AT_ONCE)

    async def one(license_id: str) -> tuple[str, str]:
        rid = str(uuid4())
        async with gate:
            try:
                answer = await patiently(
                    lambda: client.licenses.reveal_key(license_id, reason="export", request_id=rid), options.patience_s
                )
            except LictorError as error:
                if error.reason != _NOT_STORED:
                    raise
                return license_id, ""
        return license_id, answer.key

    return dict(await asyncio.gather(*(one(found.license_id) for found in licenses)))
