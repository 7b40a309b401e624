"""Who a credential stands for, by what is known of it.

No secret is compared here: a credential is looked up by its keyed hash, and how long that takes tells nothing of others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeVar

from shared.crypto import api_keys
from shared.crypto.api_keys import KeyPrefix
from shared.crypto.hashing import SecretHasher
from shared.crypto.marks import mark
from shared.db.pool import Database
from shared.errors import DomainError, Reason
from shared.facts import credential_loads as loads
from shared.facts.credential_values import AccountValue, ApiKeyValue, BindingValue, OperatorKeyValue, SessionValue
from shared.facts.license import CustomerValue, Loaded, Wanted
from shared.facts.license_reader import LicenseFactsReader
from shared.freshness.memory import Fact
from shared.freshness.reader import Look, Reader, Source, View
from shared.freshness.recall import Recall, Recalled
from shared.rules import license_keys, spiffe
from shared.rules.spiffe import SpiffeId
from shared.rules.stale import MAX_STALE
from shared.tenancy import OPERATOR_SCOPES, PUBLISHABLE_SCOPES, Mode, Principal, PrincipalKind, Tenant

_BY_LICENSE_KEY: Final = ("LICENSE", "MIXED")
_PUBLISHABLE: Final = (KeyPrefix.PUBLISHABLE_LIVE, KeyPrefix.PUBLISHABLE_TEST)

T = TypeVar("T")
Found = tuple[Principal | None]
"""The principal, or None where the credential is none that works. In a tuple, since None alone says that a fact is not
known."""
_NOBODY: Final[Found] = (None,)
MOST_RECALLED: Final = 20_000
"""Credentials whose principal is kept; one takes about a kilobyte."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a credential stands for.

    Attributes:
        principal: None where it is none that works.
        made_of: The facts in memory that say so; empty where they are from a load.
        now: The record's time at which it was decided.
    """

    principal: Principal | None
    made_of: Sequence[Fact]
    now: datetime


@dataclass(slots=True)
class RecalledPrincipal(Recalled):
    """Who a credential stands for."""

    principal: Principal


class FactsAuthenticator:
    """Authenticates keys, sessions, and callers with certificates and no key."""

    def __init__(self, db: Database, reader: Reader, licenses: LicenseFactsReader, hasher: SecretHasher) -> None:
        self._db = db
        self._reader = reader
        self._licenses = licenses
        self._hasher = hasher
        self._recall: Recall[bytes, RecalledPrincipal] = Recall(reader.tail, reader.memory, MOST_RECALLED)

    async def authenticate(self, authorization: str | None, peer_identity: str, *, in_grace: bool = False) -> Principal:
        """The principal of a credential. CREDENTIALS_INVALID says the same of every bad one; CALLER_NOT_ALLOWED is for a
        license key that is a good one, of a policy that lets none be a credential. RECORD_UNREACHABLE where the record is
        away; with `in_grace`, only where memory has no such credential that was good and not over a day ago."""
        shown = _in_certificate(peer_identity) if authorization is None else _in_header(authorization)
        recalled = self._recall.get(shown)
        if recalled is not None:
            return recalled[0].principal
        known = await (
            self._workload(peer_identity, in_grace) if authorization is None else self._key(authorization, in_grace)
        )
        if known.principal is None:
            raise invalid()
        if known.made_of:
            until = known.principal.expires_at
            self._recall.put(shown, RecalledPrincipal(known.made_of, known.now, until, known.principal))
        return known.principal

    def recognised(self, authorization: str) -> Principal | None:
        """Who `authenticate` would find behind a header, by heart; None where it would have to look."""
        recalled = self._recall.get(_in_header(authorization))
        return None if recalled is None else recalled[0].principal

    async def _key(self, authorization: str, in_grace: bool) -> Known:
        scheme, _, credential = authorization.partition(" ")
        match scheme.lower():
            case "bearer":
                return await self._bearer(credential, in_grace)
            case "license":
                return await self._license(credential, in_grace)
            case _:
                raise invalid()

    async def _bearer(self, key: str, in_grace: bool) -> Known:
        prefix = api_keys.parse(key)
        match prefix:
            case None:
                raise invalid()
            case KeyPrefix.OPERATOR:
                return await self._operator(key)
            case KeyPrefix.SECRET_LIVE | KeyPrefix.SECRET_TEST:
                return await self._api_key(key, PrincipalKind.SECRET_KEY, api_keys.mode_of(prefix), in_grace)
            case KeyPrefix.PUBLISHABLE_LIVE | KeyPrefix.PUBLISHABLE_TEST:
                return await self._api_key(key, PrincipalKind.PUBLISHABLE_KEY, api_keys.mode_of(prefix), in_grace)
            case KeyPrefix.SESSION_LIVE | KeyPrefix.SESSION_TEST:
                return await self._session(key, api_keys.mode_of(prefix))

    async def _operator(self, key: str) -> Known:
        hashes = self._hasher.candidates(key)

        def look(view: View) -> Found | None:
            return _first(view, "operator_key", hashes, OperatorKeyValue, _operator)

        return await self._one(
            look, f"operator_key:{hashes[0].hex()}", lambda: loads.load_operator_key(self._db, hashes)
        )

    async def _api_key(self, key: str, kind: PrincipalKind, mode: Mode, in_grace: bool) -> Known:
        hashes = self._hasher.candidates(key)

        def look(view: View) -> Found | None:
            return _first(view, "api_key", hashes, ApiKeyValue, lambda view, value: _api_key(view, value, kind, mode))

        root = f"api_key:{hashes[0].hex()}"
        return await self._one(look, root, lambda: loads.load_api_key(self._db, hashes), in_grace=in_grace)

    async def _license(self, pair: str, in_grace: bool) -> Known:
        """`<pk_ key>:<license key>`: a publishable key has no colon, a license key may have some."""
        key, _, license_key = pair.partition(":")
        prefix = api_keys.parse(key)
        if prefix is None or prefix not in _PUBLISHABLE or not 1 <= len(license_key) <= license_keys.MAX_CHARS:
            raise invalid()
        known = await self._api_key(key, PrincipalKind.PUBLISHABLE_KEY, api_keys.mode_of(prefix), in_grace)
        publishable = known.principal
        if publishable is None:
            raise invalid()
        wanted = Wanted(self._hasher.candidates(license_keys.canonical(license_key)), None)
        loaded = await self._credential_license(publishable.tenant, wanted, in_grace)
        facts = loaded.facts
        if facts is None:
            raise invalid()
        if facts.authentication not in _BY_LICENSE_KEY:
            raise DomainError(
                Reason.CALLER_NOT_ALLOWED,
                f"the license's policy has the authentication {facts.authentication}: its license key is no credential",
                metadata={"caller": PrincipalKind.LICENSE_KEY.value},
            )
        stale_as_of = publishable.stale_as_of
        if loaded.source is Source.GRACE:
            stale_as_of = self._reader.tail.state.asked_at
        ends = [end for end in (publishable.expires_at, facts.key_expires_at) if end is not None]
        principal = Principal(
            PrincipalKind.LICENSE_KEY, publishable.account_id, publishable.mode, publishable.key_id, publishable.scopes,
            min(ends, default=None), publishable.limits, facts.license_id, stale_as_of=stale_as_of,
        )  # fmt: skip
        # Of two decisions, each made of what is in memory, or not kept at all.
        made_of = (*known.made_of, *loaded.made_of) if known.made_of and loaded.made_of else ()
        return Known(principal, made_of, max(known.now, loaded.now))

    async def _credential_license(self, tenant: Tenant, wanted: Wanted, in_grace: bool) -> Loaded:
        def stale() -> Loaded | None:
            loaded = self._licenses.stale(tenant, wanted)
            return loaded if loaded is not None and loaded.facts is not None and self._young() else None

        if not in_grace:
            return await self._licenses.one(tenant, wanted)
        return await self._reader.or_stale(lambda: self._licenses.one(tenant, wanted), stale)

    async def _session(self, token: str, mode: Mode) -> Known:
        hashes = self._hasher.candidates(token)

        def look(view: View) -> Found | None:
            return _first(
                view, "customer_session", hashes, SessionValue, lambda view, value: _session(view, value, mode)
            )

        return await self._one(
            look, f"customer_session:{hashes[0].hex()}", lambda: loads.load_session(self._db, hashes)
        )

    async def _workload(self, peer_identity: str, in_grace: bool) -> Known:
        spiffe_id = spiffe.parse_id(peer_identity)
        if spiffe_id is None:
            raise invalid()

        def look(view: View) -> Found | None:
            return _workload(view, spiffe_id)

        root = f"workload:{peer_identity}"
        return await self._one(look, root, lambda: loads.load_workload(self._db, spiffe_id), in_grace=in_grace)

    async def _one(self, look: Look[Found], root: str, load: loads.Loading, *, in_grace: bool = False) -> Known:
        def known(view: View) -> Known | None:
            found = look(view)
            return None if found is None else Known(found[0], tuple(view.seen), view.now)

        async def read() -> Known:
            return await self._reader.read(root, known, load)

        if (held := self._reader.held(known)) is not None:
            return held
        return await (self._reader.or_stale(read, lambda: self._stale(known)) if in_grace else read())

    def _stale(self, look: Look[Known]) -> Known | None:
        """Who it was by what was known last. None where that was nobody: somebody may be by now."""
        found = self._reader.stale(look)
        if found is None or found.principal is None or not self._young():
            return None
        return replace(found, principal=replace(found.principal, stale_as_of=self._reader.tail.state.asked_at))

    def _young(self) -> bool:
        age_s = self._reader.tail.age_s
        return age_s is not None and age_s < MAX_STALE.total_seconds()


def _in_header(authorization: str) -> bytes:
    """What a certificate has proven and what a header says are never the same, whatever the text."""
    return mark(b"header " + authorization.encode())


def _in_certificate(peer_identity: str) -> bytes:
    return mark(b"certificate " + peer_identity.encode())


def _first(
    view: View, kind: str, hashes: Sequence[bytes], of: type[T], principal: Callable[[View, T], Found | None]
) -> Found | None:
    """What the first of the hashes that is there stands for."""
    for key_hash in hashes:
        fact = view.get(loads.credential_key(kind, key_hash))
        if fact is None:
            return None
        if fact.value is not None:
            assert isinstance(fact.value, of)
            return principal(view, fact.value)
    return _NOBODY


def _operator(view: View, key: OperatorKeyValue) -> Found:
    del view
    if key.revoked:
        return _NOBODY
    return (Principal(PrincipalKind.OPERATOR, "", None, key.operator_key_id, OPERATOR_SCOPES, None),)


def _api_key(view: View, key: ApiKeyValue, kind: PrincipalKind, mode: Mode) -> Found | None:
    account = _account(view, key.account_id)
    if account is None:
        return None
    secret = kind is PrincipalKind.SECRET_KEY
    ended = key.expires_at is not None and key.expires_at <= view.now
    # It must be what it says of itself.
    itself = key.mode == mode and key.kind == ("SECRET" if secret else "PUBLISHABLE")
    if key.revoked or ended or not itself or account.status != "active":
        return _NOBODY
    scopes = frozenset(key.scopes)
    held = scopes if secret else scopes & PUBLISHABLE_SCOPES
    return (Principal(kind, key.account_id, mode, key.api_key_id, held, key.expires_at, account.limits),)


def _session(view: View, session: SessionValue, mode: Mode) -> Found | None:
    account = _account(view, session.account_id)
    customer = view.get(f"customer:{session.account_id}/{session.mode}/{session.customer_id}")
    if account is None or customer is None:
        return None
    assert customer.value is None or isinstance(customer.value, CustomerValue)
    works = session.mode == mode and session.expires_at > view.now and account.status == "active"
    if not works or customer.value is None or customer.value.customer_banned:
        return _NOBODY
    return (
        Principal(
            PrincipalKind.CUSTOMER_SESSION, session.account_id, mode, session.customer_session_id, frozenset(),
            session.expires_at, account.limits, customer_id=session.customer_id,
        ),
    )  # fmt: skip


def _workload(view: View, spiffe_id: SpiffeId) -> Found | None:
    """The most exact of the bindings decides."""
    for path in spiffe_id.covering_paths():
        fact = view.get(loads.binding_key(spiffe_id.trust_domain, path))
        if fact is None:
            return None
        if fact.value is None:
            continue
        binding = fact.value
        assert isinstance(binding, BindingValue)
        account = _account(view, binding.account_id)
        if account is None:
            return None
        if account.status == "active":
            return (
                Principal(
                    PrincipalKind.WORKLOAD, binding.account_id, Mode(binding.mode), binding.workload_binding_id,
                    frozenset(binding.scopes), None, account.limits,
                ),
            )  # fmt: skip
    return _NOBODY


def _account(view: View, account_id: str) -> AccountValue | None:
    fact = view.get(f"account:{account_id}")
    if fact is None:
        return None
    assert isinstance(fact.value, AccountValue)
    return fact.value


def invalid() -> DomainError:
    """CREDENTIALS_INVALID, which says the same of every bad credential."""
    return DomainError(
        Reason.CREDENTIALS_INVALID,
        "the credential is absent, malformed, unknown, expired or revoked; "
        "send `authorization: Bearer <key>`, or come with a client certificate that a workload binding covers",
    )
