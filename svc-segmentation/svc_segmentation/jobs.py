# SPDX-License-Identifier: Apache-2.0
"""What the clock, and the consumers, start: evaluation."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

from chassis.database import Database, lost_connection
from chassis.jobs import Job

from svc_segmentation.settings import Settings
from svc_segmentation.usecases import evaluation
from svc_segmentation.usecases.rulebook import Rulebook

log = logging.getLogger(__name__)

_LOOK_S = 0.25
"""How often to look for what other processes left, and for whom time has changed."""
_RETRY_S = 1.0
_FINISH_EVERY = timedelta(seconds=20)


class Evaluator:
    """Brings memberships up to date shortly after something happened, or was due."""

    def __init__(
        self,
        database: Database,
        rulebook: Rulebook,
        settings: Settings,
        wake: asyncio.Event,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._rulebook = rulebook
        self._pause_s = settings.evaluation_pause_ms / 1000
        self._most = settings.evaluation_batch
        self._population_batch = settings.population_batch
        self._wake = wake
        self._clock = clock

    async def run(self, stopping: asyncio.Event) -> None:
        """Evaluate until the service stops."""
        while not stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _LOOK_S)
            # A pause lets the transaction that woke us commit, and gathers what else happens to the same customers.
            await asyncio.sleep(self._pause_s)
            self._wake.clear()
            await self._drain(stopping)

    async def _drain(self, stopping: asyncio.Event) -> None:
        try:
            while not stopping.is_set():
                async with self._database.transaction() as tx:
                    count = await evaluation.evaluate_waiting(tx, self._rulebook, now=self._clock(), most=self._most)
                if count < self._most:
                    return
        except Exception as error:  # whatever stays undone waits in the database
            if lost_connection(error):
                log.warning("evaluation waits for PostgreSQL")
            else:
                log.exception("evaluation failed")
            await asyncio.sleep(_RETRY_S)

    async def finish(self) -> None:
        """Evaluate the rules of requests that were stopped half-way."""
        await evaluation.finish_evaluations(
            self._database, self._rulebook, now=self._clock(), most=self._population_batch
        )


def jobs(evaluator: Evaluator) -> tuple[Job, ...]:
    """Return what the clock starts."""
    return (Job("finish-evaluations", _FINISH_EVERY, evaluator.finish),)
