# SPDX-License-Identifier: Apache-2.0
"""What a platform holds before it is measured: a catalogue and segments that live."""

from __future__ import annotations

import httpx

from bench.platform.running import SECRET_KEY, Platform
from bench.platform.workload import SEGMENTS, catalogue


def furnish(platform: Platform) -> None:
    """Write the catalogue and the segments."""
    headers = {"Authorization": f"Bearer {SECRET_KEY}"}
    with httpx.Client(base_url=platform.url, headers=headers, timeout=30, trust_env=False) as client:
        client.post("/v1/items:batchUpsert", json={"items": catalogue()}).raise_for_status()
        for name, rule in SEGMENTS:
            client.post("/v1/segments", json={"name": name, "rule": rule}).raise_for_status()
