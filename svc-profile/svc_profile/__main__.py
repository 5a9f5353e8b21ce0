# SPDX-License-Identifier: Apache-2.0
"""`python -m svc_profile <role>`."""

from chassis.main import main

from svc_profile.app import build
from svc_profile.settings import Settings

main(Settings, build)
