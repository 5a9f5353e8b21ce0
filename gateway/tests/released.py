# SPDX-License-Identifier: Apache-2.0
"""The five released, unmodified packages of Segment and RudderStack, each in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_SCRIPTS = Path(__file__).parent / "clients"
_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dangol" / "clients"
_NODE_PACKAGES = ("@segment/analytics-node@3.1.0", "@rudderstack/rudder-sdk-node@3.0.13")
_OLD_PYTHON = "segment-analytics-python==2.3.4"


@dataclass(frozen=True)
class Released:
    """A release and what it is known to do."""

    name: str
    language: str
    package: str
    version: str
    gzip: bool | None = None
    """Whether it compresses as it comes; None when it never can."""
    heeds_retry_after: bool = False
    has_key_in_header: bool = True
    one_batch: dict[str, Any] = field(default_factory=dict)
    """Options that let it send as much as it can at once."""

    async def run(self, url: str, key: str, scenario: str, **options: Any) -> list[str]:
        """Let it do something; returns what it could not deliver."""
        command, environment = await asyncio.to_thread(self._prepare)
        command += [self.package, url, key, scenario, json.dumps(options)]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **environment}
        )
        output, complaints = await process.communicate()
        assert process.returncode == 0, complaints.decode()
        told = json.loads(output.decode().splitlines()[-1])
        assert told["version"] == self.version
        errors: list[str] = told["errors"]
        return errors

    def _prepare(self) -> tuple[list[str], dict[str, str]]:
        if self.language == "node":
            return ["node", str(_SCRIPTS / "node.cjs")], {"NODE_PATH": str(_node_packages() / "node_modules")}
        command = [sys.executable, str(_SCRIPTS / "python_client.py")]
        return command, ({"PYTHONPATH": str(_old_python())} if self.version == "2.3.4" else {})


_PYTHON_BATCH = {"upload_size": 2501, "upload_interval": 5, "max_queue_size": 5000}

RELEASED = (
    Released(
        "segment-python-2.4.0",
        "python",
        "segment",
        "2.4.0",
        gzip=False,
        heeds_retry_after=True,
        one_batch=_PYTHON_BATCH,
    ),
    Released(
        "segment-python-2.3.4",
        "python",
        "segment",
        "2.3.4",
        gzip=False,
        has_key_in_header=False,
        one_batch=_PYTHON_BATCH,
    ),
    Released(
        "rudder-python-2.1.9",
        "python",
        "rudderstack",
        "2.1.9",
        gzip=True,
        one_batch=_PYTHON_BATCH,
    ),
    Released(
        "segment-node-3.1.0",
        "node",
        "segment",
        "3.1.0",
        heeds_retry_after=True,
        one_batch={"maxEventsInBatch": 2501, "flushInterval": 5000},
    ),
    Released(
        "rudder-node-3.0.13",
        "node",
        "rudder",
        "3.0.13",
        gzip=True,
        one_batch={"flushAt": 2501, "maxQueueSize": 2**23, "flushInterval": 5000},
    ),
)


def _node_packages() -> Path:
    """Install the Node clients once per machine; skips where Node is missing."""
    folder = _CACHE / "node"
    if not (folder / "installed").exists():
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            pytest.skip("Node is not installed")
        folder.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts"]
        _install([*command, *_NODE_PACKAGES], folder)
    return folder


def _old_python() -> Path:
    """Install the older Python client beside the one of the environment; skips where that cannot be done."""
    folder = _CACHE / "python-2.3.4"
    if not (folder / "installed").exists():
        uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
        _install([uv, "pip", "install", "--quiet", "--no-deps", "--target", str(folder), _OLD_PYTHON], folder)
    return folder


def _install(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, capture_output=True, timeout=240, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"{command[0]} cannot install: {type(error).__name__}")
    if done.returncode != 0:
        pytest.skip(f"{command[0]} cannot install: {done.stderr.decode()[-300:]}")
    (folder / "installed").touch()
