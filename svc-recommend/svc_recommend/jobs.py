# SPDX-License-Identifier: Apache-2.0
"""What the clock starts in svc-recommend."""

from datetime import timedelta

from chassis.jobs import Job

from svc_recommend.usecases.refreshing import Refresher

_EVERY = timedelta(seconds=0.5)


def jobs(refresher: Refresher) -> tuple[Job, ...]:
    """Return the jobs of the service."""
    return (Job("refresh-neighbourhoods", _EVERY, refresher.run),)
