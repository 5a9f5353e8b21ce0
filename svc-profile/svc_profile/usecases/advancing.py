# SPDX-License-Identifier: Apache-2.0
"""Advance every request of a data subject that is due, whatever it asks for."""

import logging
from datetime import datetime
from typing import Protocol

from chassis.database import lost_connection
from prometheus_client import Gauge

from chassis import clock
from svc_profile.domain.data_requests import Kind
from svc_profile.store.data_exports import DataExportStore
from svc_profile.store.data_requests import DataRequestStore
from svc_profile.usecases.data_exports import Exporting
from svc_profile.usecases.erasing import Erasing, Surroundings
from svc_profile.usecases.exercising import Exercising

log = logging.getLogger(__name__)

OVERDUE = Gauge("dangol_data_requests_overdue", "Requests of data subjects that are past their due time")


class Saga(Protocol):
    """What is done about one kind of request."""

    async def advance(self, data_request_id: str, now: datetime) -> None:
        """Take the next step, if it is time."""


class Advancing:
    """What the clock does about requests."""

    def __init__(self, surroundings: Surroundings, export_days: int) -> None:
        self._database = surroundings.database
        self._export_days = export_days
        exercising = Exercising(surroundings)
        self._sagas: dict[Kind, Saga] = {
            Kind.ACCESS: Exporting(surroundings),
            Kind.ERASE: Erasing(surroundings),
            Kind.RECTIFY: exercising,
            Kind.RESTRICT: exercising,
            Kind.OBJECT: exercising,
            Kind.UNRESTRICT: exercising,
        }

    async def run(self) -> None:
        """Take one step of every request that is due; one that fails does not hold up the others."""
        async with self._database.snapshot() as tx:
            due = await DataRequestStore(tx).due(clock.now())
        for data_request_id in due:
            try:
                await self.advance(data_request_id, clock.now())
            except Exception as error:
                if lost_connection(error):
                    raise
                log.exception("data request %s is tried again", data_request_id)

    async def advance(self, data_request_id: str, now: datetime) -> None:
        """Take the next step of one request, if it is time."""
        async with self._database.snapshot() as tx:
            request = await DataRequestStore(tx).get(data_request_id)
        await self._sagas[request.kind].advance(data_request_id, now)

    async def watch(self) -> None:
        """Raise the alarm while requests are past their due time."""
        async with self._database.snapshot() as tx:
            overdue = await DataRequestStore(tx).overdue(clock.now())
        OVERDUE.set(overdue)
        if overdue:
            log.error("%d requests of data subjects are past their due time", overdue)

    async def expire(self) -> None:
        """Let go of files that nobody has fetched for too long."""
        async with self._database.transaction() as tx:
            await DataExportStore(tx).expire(self._export_days)
