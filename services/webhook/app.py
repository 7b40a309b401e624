"""Composition root of the webhook service, which has no methods yet."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from shared.clock import Clock
from shared.db.roles import Role
from shared.rpc.empty import empty_app
from shared.rpc.runtime import App
from shared.settings import ProcessSettings


def build(settings: ProcessSettings, clock: Clock) -> AbstractAsyncContextManager[App]:
    """Opens what the service stands on, closes it in the end."""
    del clock
    return empty_app("webhook", Role.WEBHOOK, settings)
