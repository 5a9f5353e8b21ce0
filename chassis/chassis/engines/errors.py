# SPDX-License-Identifier: Apache-2.0
"""What can stop an engine from starting, in words that say what to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class EngineError(RuntimeError):
    """An engine did not start; the message says why and what to do."""


@dataclass
class PortTaken(EngineError):
    """Somebody else listens on the port that an engine or a service wants."""

    port: int
    setting: str
    owner: str | None

    def __str__(self) -> str:
        owner = self.owner or "another process"
        return f"port {self.port} is taken by {owner}: stop it, or set {self.setting} to a free port"


@dataclass
class FolderBusy(EngineError):
    """Another live process works on the same folder."""

    folder: Path
    pid: int | None

    def __str__(self) -> str:
        owner = f"process {self.pid}" if self.pid else "another process"
        return f"the folder {self.folder} is in use by {owner}: stop it, or use another folder"
