# SPDX-License-Identifier: Apache-2.0
"""What the demo can be told on its command line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from demo.importers import DATASETS

CUSTOMERS = 3_000
DAYS = 30


@dataclass(frozen=True, slots=True)
class Options:
    """What the demo does, and against which platform."""

    url: str
    write_key: str
    secret_key: str
    seed: int
    customers: int
    days: int
    dataset: str | None
    """Name of a real data set to read instead of simulating."""
    path: Path | None
    state: Path | None
    """Where an import remembers how far it came; None is a file in the data folder."""
    keep_times: bool
    patience: float
    """Seconds that the platform may take to process what it took."""


def read_options(arguments: Sequence[str], environment: Mapping[str, str]) -> Options:
    """Read the command line; ends the process with a message when it makes no sense."""
    parser = argparse.ArgumentParser(
        prog="demo", description="Drive a running Dangol platform through its public API, and print what it answers."
    )
    port = environment.get("DANGOL_GATEWAY_PORT") or "8080"
    parser.add_argument("--url", default=f"http://127.0.0.1:{port}", help="the platform (%(default)s)")
    parser.add_argument("--write-key", default="dk_write_local", help="key for events (%(default)s)")
    parser.add_argument("--secret-key", default="dk_secret_local", help="key for everything else (%(default)s)")
    parser.add_argument("--seed", type=_positive, default=1, help="another seed is another shop (%(default)s)")
    parser.add_argument("--customers", type=_positive, default=CUSTOMERS, help="how many (%(default)s)")
    parser.add_argument("--days", type=_positive, default=DAYS, help="days up to today (%(default)s)")
    parser.add_argument(
        "--from",
        nargs=2,
        dest="dataset",
        metavar=("NAME", "PATH"),
        help=f"import a real data set instead: {' or '.join(DATASETS)}, and the folder it is in",
    )
    parser.add_argument("--state", type=Path, help="file in which an import remembers how far it came")
    parser.add_argument("--keep-times", action="store_true", help="import with the old times, not moved up to today")
    parser.add_argument("--patience", type=float, default=300, help="seconds to wait for processing (%(default)s)")
    return _options(parser, parser.parse_args(arguments))


def state_file(options: Options, name: str) -> Path:
    """Return where the import of a data set remembers how far it came."""
    home = Path(os.environ.get("DANGOL_HOME") or ".dangol")
    return options.state or home / f"demo-import-{name}.json"


def _options(parser: argparse.ArgumentParser, found: argparse.Namespace) -> Options:
    name, path = found.dataset or (None, None)
    if name is not None and name not in DATASETS:
        parser.error(f"--from: no importer {name!r}; there are {', '.join(DATASETS)}")
    return Options(
        url=found.url,
        write_key=found.write_key,
        secret_key=found.secret_key,
        seed=found.seed,
        customers=found.customers,
        days=found.days,
        dataset=name,
        path=Path(path) if path else None,
        state=found.state,
        keep_times=found.keep_times,
        patience=found.patience,
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
