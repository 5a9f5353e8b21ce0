# SPDX-License-Identifier: Apache-2.0
"""`python -m bench`: run all benchmarks, or the named ones, each in a process of its own."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
PLATFORM = ("memory", "ingest", "freshness", "recommendation")
"""Benchmarks of the whole platform; the other modules of this folder measure one part."""
NO_BENCHMARKS = ("__init__", "__main__", "report", "service")


def modules() -> dict[str, str]:
    """Return the module of each benchmark by name; dropping a file into the folder adds one."""
    parts = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in NO_BENCHMARKS)
    names = {stem.replace("_", "-"): f"bench.{stem}" for stem in parts}
    return names | {name: f"bench.platform.{name}" for name in PLATFORM}


def main() -> int:
    """Run them one after the other; returns how many failed."""
    known = modules()
    parser = argparse.ArgumentParser(prog="bench", description="Measure, and write the tables of bench/README.md.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones: {', '.join(known)}")
    parser.add_argument("--list", action="store_true", help="only name them")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(known)):
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(known)}")
    if options.list:
        print("\n".join(known))
        return 0
    return sum(_run(name, known[name]) for name in options.names or known)


def _run(name: str, module: str) -> bool:
    """Run one; returns whether it failed."""
    print(f"— {name}", flush=True)
    failed = subprocess.run([sys.executable, "-m", module], cwd=FOLDER.parent, check=False).returncode != 0
    if failed:
        print(f"— {name} failed", file=sys.stderr, flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
