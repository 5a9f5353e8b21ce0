# SPDX-License-Identifier: Apache-2.0
"""How soon after the 200 an event has changed a segment membership and a recommendation, while other events flow."""

from __future__ import annotations

import asyncio
import time

import httpx
import uvloop

from bench.platform.calls import Questions, seconds_until
from bench.platform.http import Connection
from bench.platform.load import Load
from bench.platform.running import SECRET_KEY, Platform, running_platform
from bench.platform.setting import furnish
from bench.platform.workload import Workload, http_post
from bench.report import percentile, put_table, table

NAME = "freshness"
RATE = 2_000
PROBES = 150
WARM_UP_SECONDS = 20.0
PATIENCE_SECONDS = 30.0
GOAL_SECONDS = 1.0
# Every look costs the platform a request; the figures are that much too high at most.
PAUSE_SECONDS = 0.03
SEGMENT = "just-viewed"
RULE = "count('Product Viewed', days(1)) >= 1 && traits.tier == 'probe'"


def main() -> None:
    """Measure and write the table."""
    with running_platform() as platform:
        furnish(platform)
        _add_segment(platform)
        seconds = uvloop.run(_measure(platform))
    rows = [
        (what, percentile(values, 0.5), percentile(values, 0.95), max(values), len(values))
        for what, values in seconds.items()
    ]
    lines = table(["from the 200 to", "p50, s", "p95, s", "worst, s", "probes"], rows)
    lines += ["", f"While {RATE:,} events/s flow. Goal: p95 under {GOAL_SECONDS:.0f} s."]
    put_table(NAME, lines)
    print("\n".join(lines))


def _add_segment(platform: Platform) -> None:
    headers = {"Authorization": f"Bearer {SECRET_KEY}"}
    body = {"name": SEGMENT, "rule": RULE}
    httpx.post(f"{platform.url}/v1/segments", json=body, headers=headers, trust_env=False).raise_for_status()


async def _measure(platform: Platform) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {"the profile": [], "the segment membership": [], "the recommendation": []}
    connection, questions = Connection(platform.gateway_port), [Questions(platform.gateway_port) for _ in seconds]
    async with Load(platform.gateway_port, Workload(), RATE, connections=4) as load:
        await asyncio.sleep(WARM_UP_SECONDS)
        for number in range(PROBES):
            await connection.exchange(http_post("/v1/batch", _visit(f"fresh-{number}")))
            begin = time.monotonic()
            waits = await asyncio.gather(*_waits(questions, f"user_id:fresh-{number}", begin))
            for values, wait in zip(seconds.values(), waits, strict=True):
                values.append(wait)
            await asyncio.sleep(0.1)
        flowing = load.acknowledged
    print(f"{flowing:,} other events were acknowledged meanwhile, troubles: {dict(load.troubles)}")
    return seconds


def _visit(user: str) -> bytes:
    """An unknown customer says who they are and looks at an item."""
    identify = f'{{"type":"identify","userId":"{user}","traits":{{"tier":"probe"}},"messageId":"{user}-1"}}'
    viewed = '"event":"Product Viewed","properties":{"product_id":"sku-3","name":"제주 감귤 3호","price":1000}'
    view = f'{{"type":"track","userId":"{user}",{viewed},"messageId":"{user}-2"}}'
    return f'{{"batch":[{identify},{view}],"writeKey":"dk_write_local"}}'.encode()


def _waits(questions: list[Questions], reference: str, begin: float) -> list[asyncio.Task[float]]:
    profile, segmentation, recommend = questions

    async def is_known() -> bool:
        return (await profile.profile_counts(reference)).get("Product Viewed", 0) == 1

    async def is_member() -> bool:
        return await segmentation.is_a_member(reference, SEGMENT)

    async def is_recommended_for() -> bool:
        # The item that was viewed is no longer recommended, and the answer is this customer's own.
        is_own, items = await recommend.recommended(reference)
        return is_own and "sku-3" not in items

    async def wait(question: object) -> float:
        found = await seconds_until(question, PATIENCE_SECONDS, PAUSE_SECONDS)  # type: ignore[arg-type]
        return PATIENCE_SECONDS if found is None else time.monotonic() - begin

    return [asyncio.create_task(wait(question)) for question in (is_known, is_member, is_recommended_for)]


if __name__ == "__main__":
    main()
