# SPDX-License-Identifier: Apache-2.0
"""Command line: `python -m svc_segmentation <role>`."""

from chassis.main import main

from svc_segmentation.app import build
from svc_segmentation.settings import Settings

if __name__ == "__main__":
    main(Settings, build)
