# SPDX-License-Identifier: Apache-2.0
"""What the clock starts in svc-metrics."""

from datetime import timedelta

from chassis.jobs import Job

from svc_metrics import usecases
from svc_metrics.usecases import Stores


def jobs(stores: Stores) -> tuple[Job, ...]:
    """Everything that is due now and then; the first run is at the start."""

    async def report_broken_parts() -> None:
        await usecases.report_broken_parts(stores)

    return (Job("report-broken-parts", timedelta(hours=1), report_broken_parts),)
