# SPDX-License-Identifier: Apache-2.0
"""The only place where the gateway is put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

from chassis.bus import Bus
from chassis.keys import Keyring
from fastapi import FastAPI
from starlette.exceptions import HTTPException

from gateway import docs, health, telemetry
from gateway.access import Gatekeeper
from gateway.browser.endpoint import BrowserScriptEndpoint
from gateway.files.data_exports import DataExportEndpoint
from gateway.files.downloads import DownloadEndpoint
from gateway.files.uploads import UploadEndpoint
from gateway.front import Front
from gateway.ingest.browser import BrowserSettingsEndpoint
from gateway.ingest.endpoint import IngestEndpoint
from gateway.ingest.journal import Journal
from gateway.limits import Limiter
from gateway.problems import problem_of_exception
from gateway.settings import Settings
from gateway.transcode import contract
from gateway.transcode.calls import Services
from gateway.transcode.endpoint import ContractEndpoint
from gateway.webhooks.endpoint import WebhookEndpoint
from gateway.webhooks.sources import read_sources


def build(settings: Settings) -> Front:
    """Put the gateway together; nothing is opened before the application starts."""
    gatekeeper = Gatekeeper(Keyring.from_settings(settings.api_keys, local=settings.local))
    limiter = Limiter()
    sources = read_sources(settings.incoming_webhooks.get_secret_value())
    bus = Bus(settings, "gateway")
    known = contract.load()
    services = Services(settings, known.methods)
    journal = Journal(bus, shards=settings.event_shards, max_waiting_bytes=settings.max_waiting_bytes)
    telemetry.WAITING_BYTES.set_function(lambda: journal.waiting_bytes)
    app = FastAPI(
        title="Dangol",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # The front traces every request; FastAPI's own spans would hold paths, and these hold people's ids.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        lifespan=_lifespan(bus, services),
        exception_handlers={HTTPException: problem_of_exception},
    )
    app.include_router(docs.router(known))
    app.include_router(health.router(health.Readiness({"jetstream": bus.check})))
    limits = {"max_body_bytes": settings.max_body_bytes}
    endpoints = (
        IngestEndpoint(gatekeeper, limiter, journal, shards=settings.event_shards, **limits),
        BrowserSettingsEndpoint(gatekeeper),
        BrowserScriptEndpoint(),
        WebhookEndpoint(sources, journal, shards=settings.event_shards),
        UploadEndpoint(known, services, gatekeeper, limiter),
        DownloadEndpoint(known, services, gatekeeper, limiter),
        DataExportEndpoint(known, services, gatekeeper, limiter),
        ContractEndpoint(known, services, gatekeeper, limiter, **limits),
    )
    return Front(endpoints, app)


def _lifespan(bus: Bus, services: Services) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        services.open()
        # JetStream may come later than the gateway: until then /readyz says so, and ingest answers 503.
        opening = asyncio.create_task(bus.open())
        try:
            yield
        finally:
            opening.cancel()
            with suppress(asyncio.CancelledError):
                await opening
            await bus.close()
            await services.close()

    return lifespan
