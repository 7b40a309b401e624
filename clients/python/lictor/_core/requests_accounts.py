"""The calls of AccountService: accounts (operator keys), API keys, and who the caller is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from lictor.account.v1 import account_service_pb2 as pb

from .convert import UNSET, Unset, duration, enum_value, fresh, given, mask, several, timestamp
from .prepared import Listing, Prepared, page, read, write

_SERVICE: Final = "/lictor.account.v1.AccountService/"


def create_account(
    *,
    display_name: str,
    external_id: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.CreateAccountResponse]:
    """Creates an account. The answer's `test_api_key` and `live_api_key` are shown this once. Needs an operator key."""
    request = pb.CreateAccountRequest(request_id=fresh(request_id), display_name=display_name, external_id=external_id)
    return write(_SERVICE + "CreateAccount", request, pb.CreateAccountResponse, timeout_s)


def get_account(account_id: str = "", *, external_id: str = "", timeout_s: float | None = None) -> Prepared[pb.Account]:
    """Reads an account by its id or external id. Needs an operator key."""
    request = pb.GetAccountRequest(account_id=account_id, external_id=external_id)
    return read(_SERVICE + "GetAccount", request, pb.GetAccountResponse, lambda answer: answer.account, timeout_s)


def list_accounts(
    *, page_size: int = 0, page_token: str = "", timeout_s: float | None = None
) -> Listing[pb.ListAccountsResponse, pb.Account]:
    """Lists accounts, oldest first. Needs an operator key."""

    def ask(token: str) -> Prepared[pb.ListAccountsResponse]:
        request = pb.ListAccountsRequest(page_size=page_size, page_token=token)
        return page(_SERVICE + "ListAccounts", request, pb.ListAccountsResponse, timeout_s)

    return Listing(ask, lambda answer: answer.accounts, page_token)


def update_account(
    account_id: str,
    *,
    external_id: str | Unset | None = UNSET,
    display_name: str | Unset = UNSET,
    limits: Mapping[str, int] | Unset | None = UNSET,
    etag: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.UpdateAccountResponse]:
    """Changes what is given. `limits`, such as `{"management_calls_per_second": 100}`, replaces all that were set: 0 is
    no limit, and what is not named has its default again. Needs an operator key."""
    request = pb.UpdateAccountRequest(
        request_id=fresh(request_id),
        account_id=account_id,
        etag=etag,
        update_mask=mask(external_id=external_id, display_name=display_name, limits=limits),
        external_id=given(external_id, None) or "",
        display_name=given(display_name, ""),
        limits=pb.AccountLimits(**(given(limits, None) or {})),
    )
    return write(_SERVICE + "UpdateAccount", request, pb.UpdateAccountResponse, timeout_s)


def suspend_account(
    account_id: str, *, reason: str = "", request_id: str | None = None, timeout_s: float | None = None
) -> Prepared[pb.SuspendAccountResponse]:
    """Stops an account: every credential of it is refused. Needs an operator key."""
    request = pb.SuspendAccountRequest(request_id=fresh(request_id), account_id=account_id, reason=reason)
    return write(_SERVICE + "SuspendAccount", request, pb.SuspendAccountResponse, timeout_s)


def reinstate_account(
    account_id: str, *, reason: str = "", request_id: str | None = None, timeout_s: float | None = None
) -> Prepared[pb.ReinstateAccountResponse]:
    """Lets a suspended account work again. Needs an operator key."""
    request = pb.ReinstateAccountRequest(request_id=fresh(request_id), account_id=account_id, reason=reason)
    return write(_SERVICE + "ReinstateAccount", request, pb.ReinstateAccountResponse, timeout_s)


def create_api_key(
    *,
    scopes: Iterable[str],
    display_name: str = "",
    external_id: str = "",
    expire_time: datetime | None = None,
    kind: str | pb.ApiKeyKind.Kind.ValueType | None = None,
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.CreateApiKeyResponse]:
    """Creates a key with some of the caller's scopes. The answer's `secret` is shown this once.

    `kind="PUBLISHABLE"` makes one for applications that are shipped to customers; without, it is a secret key.
    """
    request = pb.CreateApiKeyRequest(
        request_id=fresh(request_id),
        display_name=display_name,
        external_id=external_id,
        scopes=several(scopes),
        expire_time=timestamp(expire_time),
        kind=enum_value(pb.ApiKeyKind.Kind, kind),
    )
    return write(_SERVICE + "CreateApiKey", request, pb.CreateApiKeyResponse, timeout_s)


def get_api_key(api_key_id: str = "", *, external_id: str = "", timeout_s: float | None = None) -> Prepared[pb.ApiKey]:
    """Reads an API key's record by its id or external id; never the key itself."""
    request = pb.GetApiKeyRequest(api_key_id=api_key_id, external_id=external_id)
    return read(_SERVICE + "GetApiKey", request, pb.GetApiKeyResponse, lambda answer: answer.api_key, timeout_s)


def list_api_keys(
    *, page_size: int = 0, page_token: str = "", timeout_s: float | None = None
) -> Listing[pb.ListApiKeysResponse, pb.ApiKey]:
    """Lists the API keys' records of this account and mode, oldest first."""

    def ask(token: str) -> Prepared[pb.ListApiKeysResponse]:
        request = pb.ListApiKeysRequest(page_size=page_size, page_token=token)
        return page(_SERVICE + "ListApiKeys", request, pb.ListApiKeysResponse, timeout_s)

    return Listing(ask, lambda answer: answer.api_keys, page_token)


def rotate_api_key(
    api_key_id: str,
    *,
    overlap: timedelta | None = None,
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.RotateApiKeyResponse]:
    """Replaces a key; the old one works on for `overlap` (24 hours by default). The answer's `secret` is shown once."""
    request = pb.RotateApiKeyRequest(request_id=fresh(request_id), api_key_id=api_key_id, overlap=duration(overlap))
    return write(_SERVICE + "RotateApiKey", request, pb.RotateApiKeyResponse, timeout_s)


def revoke_api_key(
    api_key_id: str, *, reason: str = "", request_id: str | None = None, timeout_s: float | None = None
) -> Prepared[pb.RevokeApiKeyResponse]:
    """Ends a key: it is refused from the next call on."""
    request = pb.RevokeApiKeyRequest(request_id=fresh(request_id), api_key_id=api_key_id, reason=reason)
    return write(_SERVICE + "RevokeApiKey", request, pb.RevokeApiKeyResponse, timeout_s)


def whoami(*, timeout_s: float | None = None) -> Prepared[pb.WhoAmIResponse]:
    """Tells which principal the credential names."""
    return read(_SERVICE + "WhoAmI", pb.WhoAmIRequest(), pb.WhoAmIResponse, lambda answer: answer, timeout_s)
