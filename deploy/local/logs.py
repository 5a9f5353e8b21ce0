# SPDX-License-Identifier: Apache-2.0
"""What the processes print, as JSON lines in files that do not grow without end."""

from __future__ import annotations

import json
import os
import re
import threading
from datetime import UTC, datetime
from logging import INFO, LogRecord
from logging.handlers import RotatingFileHandler
from pathlib import Path

MAX_BYTES = 20_000_000
KEPT_FILES = 3
LEVELS = {
    "[ERR]": "ERROR",
    "[FTL]": "CRITICAL",
    "[WRN]": "WARNING",
    "ERROR:": "ERROR",
    "FATAL:": "CRITICAL",
    "PANIC:": "CRITICAL",
    "WARNING:": "WARNING",
}
LEVEL = re.compile("|".join(map(re.escape, LEVELS)))


class ProcessLog:
    """One process's log file, fed through a pipe that outlives the restarts of the process."""

    def __init__(self, folder: Path, name: str) -> None:
        self._name = name
        self._path = folder / f"{name}.log"
        self._file = RotatingFileHandler(
            self._path, maxBytes=MAX_BYTES, backupCount=KEPT_FILES, encoding="utf-8", delay=True
        )
        if self._path.exists():
            self._file.doRollover()
        self._reading, self.descriptor = os.pipe()
        self._reader = threading.Thread(target=self._read, name=f"log of {name}", daemon=True)
        self._reader.start()

    def add(self, message: str, level: str = "INFO") -> None:
        """Write a line of our own."""
        self._write(self._wrapped(message, level))

    def last_words(self, count: int) -> list[str]:
        """The messages of the last lines, for a reader who has only the terminal."""
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
        except FileNotFoundError:
            return []
        return [_message_in(line) for line in lines]

    def close(self) -> None:
        """Write what is still in the pipe, then close; the process has ended."""
        os.close(self.descriptor)
        # Somebody who inherited the pipe may hold it open; then the daemon thread is left behind.
        self._reader.join(timeout=2)
        self._file.close()

    def _read(self) -> None:
        with open(self._reading, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if text := line.rstrip():
                    self._write(text if _is_json(text) else self._wrapped(text, _level_of(text)))

    def _wrapped(self, message: str, level: str) -> str:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        record = {"time": now, "level": level, "service": self._name, "message": message}
        return json.dumps(record, ensure_ascii=False)

    def _write(self, text: str) -> None:
        self._file.handle(LogRecord(self._name, INFO, "", 0, text, None, None))


def _is_json(text: str) -> bool:
    if not text.startswith("{"):
        return False
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _level_of(text: str) -> str:
    found = LEVEL.search(text)
    return LEVELS[found.group()] if found else "INFO"


def _message_in(line: str) -> str:
    try:
        record = json.loads(line)
    except ValueError:
        return line
    return "\n".join(str(record[key]) for key in ("message", "error") if key in record)
