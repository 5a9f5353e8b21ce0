# SPDX-License-Identifier: Apache-2.0
"""`python -m gateway`: serve the public HTTP API until SIGTERM."""

import sys

from pydantic import ValidationError

from chassis import telemetry
from gateway.app import build
from gateway.server import calm_garbage_collection, server
from gateway.settings import Settings


def main() -> None:
    """Read the settings and serve."""
    try:
        settings = Settings()
        app = build(settings)
    except (ValidationError, ValueError) as error:
        sys.exit(f"gateway: the settings are not usable\n{error}")
    telemetry.configure("gateway", settings.log_level, settings.prometheus_port)
    calm_garbage_collection()
    server(app, settings).run()


if __name__ == "__main__":
    main()
