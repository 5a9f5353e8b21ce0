# SPDX-License-Identifier: Apache-2.0
"""Wait until the platform has processed what it acknowledged, by looking through its API."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from demo.api import Api, ApiError
from demo.expectations import is_reached
from demo.progress import Progress

LOOK_SECONDS = 1.0
QUIET_LOOKS = 3


class NotSettled(Exception):
    """The platform is still working, or something is missing."""


def wait_until_settled(api: Api, expected: Mapping[str, Counter[str]], seconds: float) -> None:
    """Return when the sampled profiles are complete and no count moves any more; raises `NotSettled`."""
    end = time.monotonic() + seconds
    quiet, before, waiting = 0, None, dict(expected)
    with Progress("processed events") as progress:
        while quiet < QUIET_LOOKS or waiting:
            if time.monotonic() > end:
                raise NotSettled(_explain(before, waiting, seconds))
            time.sleep(LOOK_SECONDS)
            waiting = {user: counts for user, counts in waiting.items() if not _is_complete(api, user, counts)}
            reading = _reading(api)
            quiet = quiet + 1 if reading == before else 0
            before = reading
            remark = f"{len(waiting)} of {len(expected)} sampled profiles incomplete" if waiting else "counts settle"
            progress.reach(reading[0], remark)


def _reading(api: Api) -> tuple[int, ...]:
    """Counts that stand still when metrics and segmentation have caught up."""
    names = api.get("/v1/event-names", pageSize=1000).get("eventNames", [])
    preview = api.post("/v1/segments:preview", {"rule": "count('Order Completed') >= 1"})
    members = (segment.get("memberCount", 0) for segment in api.get("/v1/segments").get("segments", []))
    return (
        sum(name.get("count", 0) for name in names),
        preview.get("population", 0),
        preview.get("count", 0),
        *members,
    )


def _is_complete(api: Api, user: str, expected: Mapping[str, int]) -> bool:
    try:
        profile: dict[str, Any] = api.get(f"/v1/profiles/user_id:{user}")
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return is_reached(expected, profile.get("eventCounts", {}))


def _explain(reading: tuple[int, ...] | None, waiting: Mapping[str, Counter[str]], seconds: float) -> str:
    what = f"the profiles of {', '.join(sorted(waiting))} are incomplete" if waiting else "counts still move"
    events = f"{reading[0]:,}" if reading else "no"
    return f"after {seconds:.0f} s the platform shows {events} events, and {what}; --patience gives it longer"
