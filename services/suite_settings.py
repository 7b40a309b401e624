"""Settings of target=all."""

from __future__ import annotations

from services.license.settings import Settings as LicenseSettings
from services.machine.settings import Settings as MachineSettings


class SuiteSettings(LicenseSettings, MachineSettings):
    """Those of all services: what any target reads, each of the others may be given."""
