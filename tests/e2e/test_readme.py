# SPDX-License-Identifier: Apache-2.0
"""The calls of the README work as they stand there."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.platform.running import Platform
from tests.e2e.patience import everything_handled

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
HANDLED_SECONDS = 60
# The same command, but an error of the platform is an error of the command, and answers are told apart.
CURL = """
curl() { command curl --silent --show-error --fail-with-body --max-time 30 "$@" && echo; }
set -e
"""


def blocks() -> list[str]:
    """The blocks of shell that use curl, in their order."""
    found: list[str] = BLOCK.findall(README.read_text(encoding="utf-8"))
    return [block for block in found if block.startswith("curl")]


async def test_the_tour_of_the_readme_works(platform: Platform) -> None:
    """Someone who copies block after block sees what the README promises."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    answers: list[dict[str, Any]] = []
    for block in blocks():
        answers += _run(block, platform)
        # A reader needs longer for the next block than the platform for the last one.
        await everything_handled(platform, HANDLED_SECONDS)
    ingested, profile, segment, memberships, items, _, recommended, feedback, kpis, funnel, events = answers
    assert (ingested["success"], ingested["accepted"]) == (True, 4)
    assert profile["eventCounts"] == {"page": 1, "Product Viewed": 1, "identify": 1, "Order Completed": 1}
    assert segment["name"] == "seoul-buyers"
    assert "seoul-buyers" in [membership["name"] for membership in memberships["segments"]]
    assert items["createdCount"] + items.get("updatedCount", 0) == 2
    assert "sku-1002" in [item["itemId"] for item in recommended["recommendations"]]
    assert "sku-1001" not in [item["itemId"] for item in recommended["recommendations"]]
    assert (feedback["language"], feedback["sentiment"]["label"]) == ("ko", "SENTIMENT_LABEL_POSITIVE")
    assert kpis["total"]["orders"] >= 1
    assert [step["event"] for step in funnel["steps"]] == ["Product Viewed", "Order Completed"]
    assert len(events["events"]) == 4


def _run(block: str, platform: Platform) -> list[dict[str, Any]]:
    """Run a block as a shell would; returns the answers of its calls."""
    commands = CURL + block.replace("127.0.0.1:8080", f"127.0.0.1:{platform.gateway_port}")
    finished = subprocess.run(["bash", "-c", commands], capture_output=True, text=True, timeout=120, check=False)
    assert finished.returncode == 0, f"{block}\n{finished.stdout}\n{finished.stderr}"
    return [json.loads(line) for line in finished.stdout.splitlines() if line.strip()]
