"""Turns the driver's exceptions into what a caller is told. The driver's text is never part of it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import asyncpg

from shared.errors import DomainError, Reason

RETRY_AFTER_MS = 250

_UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
    # A standby that is not promoted yet refuses writes, and the epoch's table. A failover is under way.
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.FeatureNotSupportedError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
_CONFLICT = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.LockNotAvailableError)


def passes(error: BaseException) -> bool:
    """Whether it is the record that is away, or another transaction that won, and not what was asked of it. A value that the
    driver could not send is an `InterfaceError` as well."""
    return isinstance(error, (*_UNREACHABLE, *_CONFLICT)) and not isinstance(error, ValueError)


def record_unreachable() -> DomainError:
    return DomainError(
        Reason.RECORD_UNREACHABLE, "the record cannot be reached; nothing was decided", retry_after_ms=RETRY_AFTER_MS
    )


@contextmanager
def translated() -> Generator[None]:
    """Raises DomainError in place of what the driver raises for a record that is away or a transaction that lost."""
    try:
        yield
    except _CONFLICT as error:
        raise DomainError(Reason.TRANSACTION_CONFLICT, "another transaction won; try again") from error
    except _UNREACHABLE as error:
        raise record_unreachable() from error
