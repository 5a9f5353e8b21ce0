# SPDX-License-Identifier: Apache-2.0
"""Read real data sets from disk, in pieces, and turn their rows into items and actions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from demo.importers.movielens import MovieLens
from demo.importers.online_retail import OnlineRetail
from demo.importers.rows import Dataset

DATASETS: dict[str, Callable[[Path], Dataset]] = {"online-retail": OnlineRetail, "movielens-100k": MovieLens}

__all__ = ["DATASETS", "Dataset", "open_dataset"]


def open_dataset(name: str, path: Path) -> Dataset:
    """Open a copy of a data set; raises `BadDataset` when it is not one."""
    return DATASETS[name](path)
