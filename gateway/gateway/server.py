# SPDX-License-Identifier: Apache-2.0
"""The HTTP server around the application."""

import gc
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from gateway.front import Front
from gateway.settings import Settings


class Server(uvicorn.Server):
    """A server that ends with success when it is asked to stop; uvicorn's own dies of the signal again."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Drain on SIGTERM and SIGINT: accept no more, finish what is under way."""
        before = {name: signal.signal(name, self.handle_exit) for name in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)


def server(app: Front, settings: Settings) -> Server:
    """Return the server of an application, not yet started."""
    return Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=max(1, int(settings.drain_seconds)),
        )
    )


def calm_garbage_collection() -> None:
    """Leave what start-up made out of garbage collection for good; requests make few cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
