"""Settings of target=all."""

from __future__ import annotations

from services.license.settings import Settings as LicenseSettings
from services.machine.settings import WorkerSettings as MachineSettings


class SuiteSettings(LicenseSettings, MachineSettings):
    """Those of all services, but where the others answer: they are in the same process."""
