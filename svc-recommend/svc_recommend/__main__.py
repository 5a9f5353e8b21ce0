# SPDX-License-Identifier: Apache-2.0
"""`python -m svc_recommend <role>`."""

from chassis.main import main

from svc_recommend.app import build
from svc_recommend.settings import Settings

main(Settings, build)
