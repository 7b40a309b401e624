"""Products, tiers and policies. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from services.license.terms import Template, Terms


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
    """The terms of the licenses under it. `check_in_since` is from when on it requires check-ins."""

    policy_id: str
    external_id: str | None
    product_id: str
    display_name: str
    template: Template
    terms: Terms
    check_in_since: datetime | None
    labels: Mapping[str, str]
    metadata: Mapping[str, Any]
    revision: int
    created_at: datetime
    updated_at: datetime
