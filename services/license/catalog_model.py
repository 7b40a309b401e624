"""Products, tiers and policies, and the templates that policies are made from. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from shared.errors import DomainError, Reason


class KeyStorage(StrEnum):
    """How the license keys of a product are kept. It cannot change: keys that were issued are kept as they were."""

    SEALED = "SEALED"
    """Encrypted beside their hash, so that they can be shown again."""
    HASH_ONLY = "HASH_ONLY"


@dataclass(frozen=True, slots=True)
class Product:
    """A software title."""

    product_id: str
    external_id: str | None
    code: str
    slug: str
    display_name: str
    url: str
    key_storage: KeyStorage
    labels: Mapping[str, str]
    metadata: Mapping[str, Any]
    revision: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Tier:
    """An edition of a product. A greater `position` is a higher tier."""

    tier_id: str
    external_id: str | None
    product_id: str
    slug: str
    display_name: str
    position: int
    labels: Mapping[str, str]
    metadata: Mapping[str, Any]
    revision: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Policy:
    """The terms of the licenses under it. `max_machines` None is unlimited, `duration` None is perpetual."""

    policy_id: str
    external_id: str | None
    product_id: str
    display_name: str
    template: Template
    duration: timedelta | None
    is_trial: bool
    max_machines: int | None
    floating: bool
    require_fingerprint: bool
    require_heartbeat: bool
    heartbeat_interval: timedelta
    offline_allowed: bool
    offline_max_ttl: timedelta
    labels: Mapping[str, str]
    metadata: Mapping[str, Any]
    revision: int
    created_at: datetime
    updated_at: datetime


class Template(StrEnum):
    """A set of defaults for a common kind of software."""

    CUSTOM = "custom"
    DESKTOP_APP = "desktop_app"
    CLI_TOOL = "cli_tool"
    SAAS = "saas"
    TRIAL = "trial"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a template fills. `unlimited` says that choosing the template is the consent to unlimited machines."""

    duration: timedelta | None = None
    is_trial: bool = False
    max_machines: int | None = None
    unlimited: bool = False
    floating: bool = False
    require_fingerprint: bool = True
    require_heartbeat: bool = False
    heartbeat_interval: timedelta = timedelta(seconds=600)
    offline_allowed: bool = True
    offline_max_ttl: timedelta = timedelta(days=14)


TEMPLATES: Final[Mapping[Template, Terms]] = MappingProxyType(
    {
        Template.CUSTOM: Terms(),
        Template.DESKTOP_APP: Terms(max_machines=2),
        Template.CLI_TOOL: Terms(max_machines=3, offline_max_ttl=timedelta(days=7)),
        Template.SAAS: Terms(
            duration=timedelta(days=30),
            unlimited=True,
            floating=True,
            require_fingerprint=False,
            require_heartbeat=True,
            heartbeat_interval=timedelta(minutes=1440),
            offline_allowed=False,
        ),
        Template.TRIAL: Terms(duration=timedelta(days=14), is_trial=True, max_machines=1, offline_allowed=False),
    }
)


def refuse_unconfirmed(max_machines: int | None, *, confirmed: bool) -> None:
    """UNLIMITED_NOT_CONFIRMED where machines would be unlimited and nobody said so."""
    if max_machines is None and not confirmed:
        raise DomainError(
            Reason.UNLIMITED_NOT_CONFIRMED,
            "without max_machines the number of machines is unlimited: set it, or set allow_unlimited",
            metadata={"field": "max_machines"},
        )
