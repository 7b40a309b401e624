"""Calls by JSON over HTTP, and what their answers are taken apart into."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
REQUEST_INFO = "type.googleapis.com/google.rpc.RequestInfo"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer with a JSON body. `status` is HTTP's."""

    status: int
    headers: Mapping[str, str]
    body: Any

    def detail(self, kind: str) -> dict[str, Any]:
        """The one detail of a kind; empty when there is none."""
        found = [detail for detail in self.body["details"] if detail["@type"] == kind]
        assert len(found) <= 1, self.body
        return found[0] if found else {}

    @property
    def reason(self) -> str:
        return self.detail(ERROR_INFO)["reason"]

    @property
    def violations(self) -> list[tuple[str, str]]:
        """(field, reason) pairs."""
        found = self.detail(BAD_REQUEST).get("fieldViolations", [])
        return [(violation["field"], violation["reason"]) for violation in found]


@dataclass(frozen=True, slots=True)
class JsonClient:
    """Calls to one address with one key."""

    session: aiohttp.ClientSession
    base: str
    key: str

    async def call(
        self,
        verb: str,
        path: str,
        body: object = None,
        *,
        raw: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request. The path is sent as it is written here.

        Args:
            verb: HTTP's method.
            path: With its query.
            body: Sent as JSON, unless None.
            raw: Sent as it is.
            headers: Beside, or in place of, `authorization`.
        """
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        sent = {"authorization": f"Bearer {self.key}", "content-type": "application/json", **(headers or {})}
        url = URL(self.base + path, encoded=True)
        async with self.session.request(verb, url, data=data, headers=sent) as answer:
            assert answer.headers["content-type"] == "application/json", (answer.status, answer.headers)
            return Answer(answer.status, dict(answer.headers), await answer.json())

    def with_key(self, key: str) -> JsonClient:
        return JsonClient(self.session, self.base, key)


REFUSALS = {
    400: (3, "FIELD_INVALID"),
    403: (3, "FIELD_INVALID"),
    404: (12, "METHOD_UNKNOWN"),
    408: (4, "DEADLINE_TOO_SHORT"),
    413: (3, "FIELD_INVALID"),
    426: (3, "FIELD_INVALID"),
    431: (3, "FIELD_INVALID"),
    501: (3, "FIELD_INVALID"),
}
"""The code and the reason that go with an HTTP status."""


def assert_refusal(answer: Answer, status: int, violation: str, words: str) -> None:
    """Envoy's own refusal: exactly this shape, and a message that tells why."""
    assert answer.status == status, answer
    code, reason = REFUSALS[status]
    message = answer.body["message"]
    assert words in message
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": "lictor.dev",
        "metadata": {"violations": "1"} if violation else {},
    }
    bad = {
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": [{"field": "", "reason": violation, "description": message}],
    }
    assert answer.body == {"code": code, "message": message, "details": [info, bad] if violation else [info]}


@asynccontextmanager
async def json_client(address: str, key: str) -> AsyncGenerator[JsonClient]:
    """A client of `host:port`."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield JsonClient(session, f"http://{address}", key)
