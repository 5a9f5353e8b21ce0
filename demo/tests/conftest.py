# SPDX-License-Identifier: Apache-2.0
"""Where tests find real data sets."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def dataset_folder() -> Callable[[str], Path]:
    """Find the folder of a data set; the test is skipped where it is not."""

    def find(name: str) -> Path:
        root = os.environ.get("DANGOL_DATASETS")
        if not root:
            pytest.skip("DANGOL_DATASETS is not set: no folder with real data sets")
        folder = Path(root) / name
        if not folder.is_dir():
            pytest.skip(f"there is no {name} in DANGOL_DATASETS")
        return folder

    return find
