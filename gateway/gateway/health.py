# SPDX-License-Identifier: Apache-2.0
"""Liveness and readiness of the gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from fastapi import APIRouter
from fastapi.responses import JSONResponse

_LOOK_S = 2.0
_REMEMBER_S = 1.0

Check = Callable[[], Awaitable[None]]


class Readiness:
    """Asks every dependency without which the gateway cannot work, at most once a second."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks
        self._states: dict[str, str] = {}
        self._looked = float("-inf")
        self._looking = asyncio.Lock()

    async def states(self) -> Mapping[str, str]:
        """Return `ok`, or what is wrong, by dependency."""
        async with self._looking:
            if time.monotonic() - self._looked > _REMEMBER_S:
                self._states = {name: await _state(check) for name, check in self._checks.items()}
                self._looked = time.monotonic()
        return self._states


async def _state(check: Check) -> str:
    try:
        await asyncio.wait_for(check(), _LOOK_S)
    except Exception as error:
        return str(error) or type(error).__name__
    return "ok"


def router(readiness: Readiness) -> APIRouter:
    """Return the two routes."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/healthz")
    async def live() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    @routes.get("/readyz")
    async def ready() -> JSONResponse:
        states = await readiness.states()
        is_ready = all(state == "ok" for state in states.values())
        return JSONResponse(
            {"status": "ready" if is_ready else "not ready", "dependencies": dict(states)},
            status_code=200 if is_ready else 503,
        )

    return routes
