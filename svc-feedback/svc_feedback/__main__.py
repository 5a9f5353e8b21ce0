# SPDX-License-Identifier: Apache-2.0
"""Run svc-feedback: `python -m svc_feedback <role>`."""

from chassis.main import main

from svc_feedback.app import build
from svc_feedback.settings import Settings

if __name__ == "__main__":
    main(Settings, build)
