# SPDX-License-Identifier: Apache-2.0
"""`python -m svc_metrics <role>`."""

from chassis.main import main

from svc_metrics.app import build
from svc_metrics.settings import Settings

if __name__ == "__main__":
    main(Settings, build)
