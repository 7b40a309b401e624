"""Composition root of the license service: settings -> resources -> servicers -> routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from lictor.account.v1 import account_service_pb2
from lictor.license.v1 import (
    catalog_service_pb2,
    customer_service_pb2,
    license_service_pb2,
    signing_service_pb2,
    token_service_pb2,
    validation_service_pb2,
)

from services.license.account_servicer import AccountServicer
from services.license.answer_counts import AnswerCounts
from services.license.answers import Answers
from services.license.boundaries import BoundaryWorker
from services.license.catalog_servicer import CatalogServicer
from services.license.customer_servicer import CustomerServicer
from services.license.errors import taken
from services.license.key_keeper import KeyKeeper
from services.license.resources import Resources
from services.license.servicer import LicenseServicer
from services.license.settings import Settings
from services.license.signers import Signers
from services.license.signing_servicer import SigningServicer
from services.license.sweeper import sweep_forever
from services.license.token_servicer import TokenServicer
from services.license.validation import ValidationServicer
from services.license.validation_marks import ValidationMarks
from services.license.watch_hub import Watches
from services.license.worker_metrics import WorkerMetrics
from shared.clock import Clock
from shared.crypto import keyring
from shared.crypto.fingerprints import FingerprintHasher
from shared.crypto.page_tokens import PageTokens
from shared.db.pool import Database
from shared.db.processes import BEAT_S, ProcessRow
from shared.db.roles import Role
from shared.facts.signing_keys import KeySets
from shared.facts.standing import Standing, standing
from shared.freshness.keeper import keep_forever
from shared.freshness.resume import ResumeTokens
from shared.rpc.routes import ServiceBinding
from shared.rpc.runtime import App
from shared.rpc.share import Share
from shared.settings import Target

MEMORY_PER_ANSWER: Final = 2048
"""An answer is kept for each so many bytes of facts: about as many as there are licenses in memory."""
WORKER_CONNECTIONS: Final = 4
"""One each for what runs beside the calls."""


@asynccontextmanager
async def build(settings: Settings, clock: Clock, target: Target = Target.LICENSE) -> AsyncGenerator[App]:
    """Opens what the service stands on, closes it in the end; `target` is what the process serves."""
    async with standing(settings, clock) as base, build_on(base, settings, target) as app:
        yield app


@asynccontextmanager
async def build_on(base: Standing, settings: Settings, target: Target) -> AsyncGenerator[App]:
    """The same, on what a process has opened for all of its services."""
    root, hasher = base.root, base.hasher
    kek = None if settings.kek_file is None else keyring.load(settings.kek_file)
    async with (
        Database.opened(base.record, Role.LICENSE, size=settings.pool_size) as db,
        Database.opened(base.record, Role.LICENSE_WORKER, size=WORKER_CONNECTIONS) as worker,
    ):
        row, share = ProcessRow(db, target), Share()
        writer = base.writer(db, taken)
        metrics = WorkerMetrics()
        marks, counts = ValidationMarks(worker, metrics), AnswerCounts()
        answers = Answers(base.reader, marks, counts, settings.facts_memory_bytes // MEMORY_PER_ANSWER)
        watches = Watches(base.reader.tail, base.facts, ResumeTokens(root))
        resources = Resources(
            db,
            base.licenses,
            writer,
            hasher,
            FingerprintHasher(root),
            PageTokens(root),
            KeyKeeper(hasher, kek),
            marks,
            counts,
            watches,
            Signers(kek),
            KeySets(base.facts, base.reader),
        )
        validations = ValidationServicer(resources, answers)
        beside = {
            "sweeper": sweep_forever(worker, settings.request_sweep_interval_s),
            "log keeper": keep_forever(worker),
            "boundaries": BoundaryWorker(worker, metrics).run(settings.boundary_interval_s),
            "marks": marks.run(settings.mark_interval_s),
        }
        stop_telling = base.reader.tail.listen(watches.changed)
        tasks = [asyncio.create_task(work, name=name) for name, work in beside.items()]
        try:
            async with share.kept(row.beat, row.leave, BEAT_S):
                yield App(
                    bindings=tuple(
                        ServiceBinding(module.DESCRIPTOR.services_by_name[name], servicer, again)
                        for module, name, servicer, again in (
                            (account_service_pb2, "AccountService", AccountServicer(resources), {}),
                            (catalog_service_pb2, "CatalogService", CatalogServicer(resources), {}),
                            (customer_service_pb2, "CustomerService", CustomerServicer(resources), {}),
                            (license_service_pb2, "LicenseService", LicenseServicer(resources), {}),
                            (token_service_pb2, "TokenService", TokenServicer(resources), {}),
                            (signing_service_pb2, "SigningService", SigningServicer(resources), {}),
                            (
                                validation_service_pb2,
                                "ValidationService",
                                validations,
                                {"ValidateLicense": validations.validate_again},
                            ),
                        )
                    ),
                    authenticator=base.authenticator,
                    recognise=base.authenticator.recognised,
                    ready=lambda: True,
                    live=lambda: share.live,
                    services=base.services,
                    waits=base.waits,
                    collectors=[
                        counts, *metrics.collectors, *base.collectors, *watches.collectors,
                    ],
                )  # fmt: skip
        finally:
            stop_telling()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await marks.try_to_flush()
