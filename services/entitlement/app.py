"""Composition root of the entitlement service, which has no methods yet."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from shared.clock import Clock
from shared.db.roles import Role
from shared.rpc.empty import empty_app
from shared.rpc.runtime import App
from shared.settings import ProcessSettings


def build(settings: ProcessSettings, clock: Clock, *, alone: bool = True) -> AbstractAsyncContextManager[App]:
    """Opens what the service stands on, closes it in the end; `alone` unless the process serves others too."""
    del clock
    return empty_app("entitlement", Role.ENTITLEMENT, settings, alone=alone)
