# SPDX-License-Identifier: Apache-2.0
"""The platform's public HTTP API, as a server of the shop calls it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import httpx

ATTEMPTS = 8
PATIENCE_SECONDS = 30.0
MAX_PAUSE_SECONDS = 10.0
ITEMS_PER_REQUEST = 500


class ApiError(Exception):
    """The platform answered with an error, or not at all."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """Calls the platform with a secret key, and again when it is busy."""

    def __init__(self, url: str, secret_key: str) -> None:
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {secret_key}"}
        self._client = httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE_SECONDS, trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """Read something."""
        return self._call("GET", path, query)

    def post(self, path: str, body: dict[str, Any], **query: Any) -> dict[str, Any]:
        """Create or ask something; every call of the demo may be repeated."""
        return self._call("POST", path, query, body)

    def patch(self, path: str, body: dict[str, Any], **query: Any) -> dict[str, Any]:
        """Change something."""
        return self._call("PATCH", path, query, body)

    def wait_until_ready(self, seconds: float) -> None:
        """Wait until the platform says that it is ready; raises `ApiError` when it does not in time."""
        end = time.monotonic() + seconds
        while not self._is_ready():
            if time.monotonic() > end:
                raise ApiError(
                    f"nothing is ready at {self.url}: start the platform with `make run`, or name it with --url"
                )
            time.sleep(0.5)

    def put_items(self, items: Sequence[dict[str, Any]]) -> None:
        """Write items into the catalogue."""
        for begin in range(0, len(items), ITEMS_PER_REQUEST):
            self.post("/v1/items:batchUpsert", {"items": list(items[begin : begin + ITEMS_PER_REQUEST])})

    def put_segment(self, name: str, rule: str, description: str) -> dict[str, Any]:
        """Create a segment, or give the one of that name this rule."""
        try:
            return self.post("/v1/segments", {"name": name, "rule": rule, "description": description})
        except ApiError as error:
            if error.status != httpx.codes.CONFLICT:
                raise
        return self.patch(f"/v1/segments/{name}", {"rule": rule, "description": description})

    def _call(
        self, method: str, path: str, query: dict[str, Any], body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                response = self._client.request(method, path, params=query, json=body)
            except httpx.TransportError as error:
                problem = ApiError(f"{method} {path}: {type(error).__name__} at {self.url}")
                pause = float(attempt)
            else:
                if response.is_success:
                    return dict(response.json())
                problem = ApiError(f"{method} {path}: {_reason(response)}", response.status_code)
                if response.status_code not in (429, 502, 503, 504):
                    break
                pause = float(response.headers.get("Retry-After", attempt))
            if attempt < ATTEMPTS:
                time.sleep(min(pause, MAX_PAUSE_SECONDS))
        raise problem

    def _is_ready(self) -> bool:
        try:
            return self._client.get("/readyz", timeout=2).is_success
        except httpx.TransportError:
            return False


def _reason(response: httpx.Response) -> str:
    """Put an RFC 9457 problem into one line."""
    try:
        problem = response.json()
    except ValueError:
        return f"HTTP {response.status_code}"
    detail = problem.get("detail") or problem.get("message") or problem.get("title") or ""
    fields = "; ".join(
        f"{violation.get('field')}: {violation.get('rule')}" for violation in problem.get("violations", [])
    )
    return " ".join(filter(None, (f"HTTP {response.status_code}", str(detail), fields)))
