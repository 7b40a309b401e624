"""Composition root of the machine service: settings -> resources -> servicers -> routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from lictor.machine.v1 import activation_service_pb2, machine_service_pb2

from services.machine.activation_servicer import ActivationServicer
from services.machine.beats import Beats
from services.machine.errors import taken
from services.machine.holds import Holds
from services.machine.license_calls import license_calls
from services.machine.metrics import BeatMetrics, MachineWorkerMetrics
from services.machine.resources import Resources
from services.machine.seat_news import SeatNews
from services.machine.secrets import MachineSecrets
from services.machine.servicer import MachineServicer
from services.machine.settings import Settings, WorkerSettings
from services.machine.worker import MachineWorker
from shared.clock import Clock
from shared.crypto.fingerprints import FingerprintHasher
from shared.crypto.page_tokens import PageTokens
from shared.db.pool import Database
from shared.db.processes import BEAT_S, ProcessRow
from shared.db.roles import Role
from shared.facts.standing import Standing, standing
from shared.rpc.client import ServiceCaller
from shared.rpc.routes import ServiceBinding
from shared.rpc.runtime import App
from shared.rpc.share import Share
from shared.settings import Target

WORKER_CONNECTIONS: Final = 2
"""One for the batches of heartbeats, one for the worker."""


@asynccontextmanager
async def build(settings: Settings, clock: Clock) -> AsyncGenerator[App]:
    """Opens what the service stands on, closes it in the end."""
    async with (
        standing(settings, clock) as base,
        license_calls(settings, base.services) as calls,
        Database.opened(base.record, Role.MACHINE, size=1) as own,
    ):
        row, share = ProcessRow(own, Target.MACHINE), Share()
        async with share.kept(row.beat, row.leave, BEAT_S), build_on(base, settings, clock, calls) as app:
            yield replace(app, live=lambda: share.live, collectors=[*app.collectors, *base.collectors])


@asynccontextmanager
async def build_on(base: Standing, settings: WorkerSettings, clock: Clock, calls: ServiceCaller) -> AsyncGenerator[App]:
    """The same, on what a process has opened for all of its services; `calls` reach the license service."""
    root = base.root
    news = SeatNews()
    async with (
        Database.opened(base.record, Role.MACHINE, size=settings.pool_size) as db,
        Database.opened(base.record, Role.MACHINE_WORKER, size=WORKER_CONNECTIONS) as worker,
    ):
        holds = Holds(db)
        beaten, worked = BeatMetrics(), MachineWorkerMetrics()
        beats = Beats(worker, base.facts, clock, beaten)
        resources = Resources(
            db, base.licenses, base.writer(db, taken), base.hasher, FingerprintHasher(root), MachineSecrets(root),
            PageTokens(root), base.waits, news, holds, beats, calls,
        )  # fmt: skip
        beside = {
            "heartbeats": beats.run(),
            "machines": MachineWorker(worker, worked).run(settings.machine_sweep_interval_s),
        }
        tasks = [asyncio.create_task(work, name=name) for name, work in beside.items()]
        try:
            async with holds.renewed():
                with news.following(base.reader.tail):
                    yield App(
                        bindings=tuple(
                            ServiceBinding(module.DESCRIPTOR.services_by_name[name], servicer)
                            for module, name, servicer in (
                                (machine_service_pb2, "MachineService", MachineServicer(resources)),
                                (activation_service_pb2, "ActivationService", ActivationServicer(resources)),
                            )
                        ),
                        authenticator=base.authenticator,
                        ready=lambda: True,
                        waits=base.waits,
                        collectors=[*beaten.collectors, *worked.collectors, holds.gauge],
                    )
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await beats.drain()
