"""Per-account admission: one account's calls take a share of the process's places, so that others find one.

Whose a call is turns out when its credential has been loaded, which costs a connection to the record. So that a flood
does not wait there by the hundred, a call is counted before that under the account that its credential named last time. A
credential that was not seen before, or is none, counts under `STRANGERS` until it is known. This is a guess about load:
it lets nobody in, and each credential is still loaded for each call.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from shared.db.lanes import LANE
from shared.errors import DomainError, Reason
from shared.rpc.admission import RETRY_AFTER_MS
from shared.rpc.turns import Turns
from shared.tenancy import Principal

DEFAULT_SHARE_PERCENT: Final = 25
MAX_SEEN: Final = 50_000
"""Credentials whose account is remembered, each as a number; the one that was used longest ago is forgotten."""
STRANGERS: Final = "strangers"
OPERATORS: Final = "operators"


class AccountPlaces:
    """Counts the calls in flight by whose they are.

    Args:
        max_in_flight: The places of the process.
        share_percent: How much of them one account may take, 1 to 100.
    """

    def __init__(self, max_in_flight: int, share_percent: int = DEFAULT_SHARE_PERCENT) -> None:
        self._most = max(1, max_in_flight * share_percent // 100)
        self._taken: dict[str, int] = {}
        self.turns = Turns()
        self._seen: OrderedDict[int, str] = OrderedDict()

    def taken(self, whose: str) -> int:
        """How many calls of an account are in flight."""
        return self._taken.get(whose, 0)

    def room(self, account_id: str) -> bool:
        """Whether a call of an account would find a place, and its turn too, where it is answered without waiting."""
        return self._taken.get(account_id, 0) < self._most and self.turns.free(account_id)

    def arrive(self, credential: str) -> str:
        """Takes a place for a call before its credential is loaded; returns under whom it counts.

        Of the credential only a number is kept.

        Raises:
            DomainError: OVERLOADED, with a time to wait.
        """
        whose = self._seen.get(hash(credential), STRANGERS)
        self._enter(whose)
        LANE.set(whose)
        return whose

    def known(self, whose: str, credential: str, principal: Principal) -> str:
        """Counts the call under its account; returns that. The place that it had stays its own when it is refused.

        Raises:
            DomainError: OVERLOADED, with a time to wait.
        """
        mark, account = hash(credential), principal.account_id or OPERATORS
        seen = self._seen
        seen[mark] = account
        seen.move_to_end(mark)
        if len(seen) > MAX_SEEN:
            seen.popitem(last=False)
        if account != whose:
            self._enter(account)
            self.leave(whose)
            LANE.set(account)
        return account

    def leave(self, whose: str) -> None:
        """Gives a place back."""
        left = self._taken[whose] - 1
        if left:
            self._taken[whose] = left
        else:
            del self._taken[whose]

    def _enter(self, whose: str) -> None:
        taken = self._taken.get(whose, 0)
        if taken >= self._most:
            who = "callers that are not known yet" if whose == STRANGERS else "this account"
            raise DomainError(
                Reason.OVERLOADED,
                f"{taken} calls of {who} are in flight already",
                retry_after_ms=RETRY_AFTER_MS,
                caller=whose,
            )
        self._taken[whose] = taken + 1
