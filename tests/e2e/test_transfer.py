# SPDX-License-Identifier: Apache-2.0
"""Files in and out over HTTP, on a platform whose processes die."""

import asyncio
import csv
import io
import time
from collections.abc import Iterator

import httpx
import psutil

from bench.platform.running import SECRET_KEY, Platform
from tests.e2e.patience import everything_handled

ROWS = 200_000
CUSTOMERS = 500
PATIENCE_SECONDS = 240
HELD_BYTES = 64 * 2**20
"""By so much may a process grow while a file of twice the size goes through it."""
MAPPING = {
    "columns": [
        {"column": "customer", "field": "user_id"},
        {"column": "at", "field": "time"},
        {"column": "total", "field": "properties.revenue", "type": "IMPORT_TYPE_NUMBER"},
        {"column": "note", "field": "properties.note"},
    ],
    "constants": [{"field": "name", "value": "Order Completed"}],
}


def orders(tag: str, count: int) -> Iterator[bytes]:
    """Make a file of orders, each of 1, line by line; every customer has the same number."""
    yield b"customer,at,total,note\n"
    for number in range(count):
        note = f"{number:07d}" * 70
        yield f"{tag}-{number % CUSTOMERS},2024-03-01T10:00:00Z,1,{note}\n".encode()


class Watched:
    """The largest size of a process while something goes on."""

    def __init__(self, platform: Platform, name: str) -> None:
        self._platform = platform
        self._name = name
        self.before = self._now()
        self.most = self.before

    def look(self) -> None:
        self.most = max(self.most, self._now())

    @property
    def growth(self) -> int:
        return self.most - self.before

    def _now(self) -> int:
        pid = self._platform.supervisor.pids[self._name]
        return psutil.Process(pid).memory_info().rss if pid else 0


def create(api: httpx.Client, **fields: object) -> str:
    body = {"kind": "IMPORT_KIND_EVENTS", "format": "IMPORT_FORMAT_CSV", "source": "till", "mapping": MAPPING, **fields}
    answer = api.post("/v1/imports", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["importJob"]["importId"])


def job(api: httpx.Client, import_id: str) -> dict[str, str]:
    """Ask how far an import is."""
    return dict(patiently(api, f"/v1/imports/{import_id}")["importJob"])


def patiently(api: httpx.Client, path: str) -> dict[str, dict[str, str]]:
    """Ask as often as it takes while the service comes back."""
    for _ in range(200):
        answer = api.get(path)
        if answer.status_code == 200:
            return dict(answer.json())
        assert answer.status_code in (503, 504), answer.text
        time.sleep(0.1)
    raise AssertionError("svc-profile does not come back")


def ended(api: httpx.Client, import_id: str, watched: Watched | None = None) -> dict[str, str]:
    until = time.monotonic() + PATIENCE_SECONDS
    while (now := job(api, import_id))["state"] in ("IMPORT_STATE_RUNNING", "IMPORT_STATE_UPLOADING"):
        assert time.monotonic() < until, now
        if watched:
            watched.look()
        time.sleep(0.1)
    return now


def revenue(api: httpx.Client, customer: str) -> float:
    return float(api.get(f"/v1/profiles/user_id:{customer}").json()["revenue"]["KRW"])


async def test_a_file_streams_through_and_what_dies_on_the_way_goes_on(platform: Platform, api: httpx.Client) -> None:
    """Neither the gateway nor the service holds the file; svc-profile is killed twice and every order counts once."""
    tag = f"file-{time.time_ns()}"
    import_id = create(api)
    gateway, service = Watched(platform, "gateway"), Watched(platform, "profile")
    size = await asyncio.to_thread(upload, platform, import_id, tag, (gateway, service))
    assert size > 2 * HELD_BYTES * 0.75
    assert gateway.growth < HELD_BYTES
    assert service.growth < HELD_BYTES
    for share in (0.2, 0.6):
        while int(job(api, import_id)["readRows"]) < ROWS * share:
            await asyncio.sleep(0.05)
        await asyncio.to_thread(platform.supervisor.kill, "profile")
        await asyncio.to_thread(platform.supervisor.wait_until_healthy, 60)
    service = Watched(platform, "profile")
    done = await asyncio.to_thread(ended, api, import_id, service)
    assert (done["state"], done["readRows"], done["rejectedRows"]) == ("IMPORT_STATE_COMPLETED", str(ROWS), "0")
    assert service.growth < 2 * HELD_BYTES
    for number in (0, 1, CUSTOMERS - 1):
        assert revenue(api, f"{tag}-{number}") == ROWS / CUSTOMERS
    await everything_handled(platform, PATIENCE_SECONDS)


def upload(platform: Platform, import_id: str, tag: str, watched: tuple[Watched, ...]) -> int:
    """Send the file as one body of unknown length."""
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        held = bytearray()
        for line in orders(tag, ROWS):
            held += line
            if len(held) > 2**20:
                sent += len(held)
                yield bytes(held)
                held.clear()
                for each in watched:
                    each.look()
        sent += len(held)
        yield bytes(held)

    headers = {"Authorization": f"Bearer {SECRET_KEY}"}
    answer = httpx.put(f"{platform.url}/v1/imports/{import_id}/file", content=body(), headers=headers, timeout=120)
    assert answer.status_code == 200, answer.text
    assert answer.json()["importJob"]["receivedBytes"] == str(sent)
    return sent


def test_an_upload_goes_on_with_content_range(api: httpx.Client) -> None:
    tag = f"range-{time.time_ns()}"
    data = b"".join(orders(tag, 1_000))
    import_id = create(api, source="till2")
    path, size = f"/v1/imports/{import_id}/file", len(data)

    def put(start: int, end: int, total: object = size) -> httpx.Response:
        headers = {"Content-Range": f"bytes {start}-{end - 1}/{total}"}
        return api.put(path, content=data[start:end], headers=headers)

    assert put(0, 1000, "*").json() == {"receivedBytes": "1000"}
    gap = put(2000, 3000)
    assert (gap.status_code, gap.json()["reason"]) == (400, "UPLOAD_GAP")
    assert gap.json()["metadata"]["received_bytes"] == "1000"
    assert put(500, 5000).json() == {"receivedBytes": "5000"}
    assert job(api, import_id)["state"] == "IMPORT_STATE_UPLOADING"
    assert put(5000, size).json()["importJob"]["state"] == "IMPORT_STATE_RUNNING"
    assert ended(api, import_id)["takenEvents"] == "1000"
    assert api.put(path, content=b"x", headers={"Content-Range": "bytes 5-1/2"}).json()["reason"] == "INVALID_RANGE"
    assert api.post(path).status_code == 405


def test_an_export_is_downloaded_from_any_byte_on(platform: Platform, api: httpx.Client) -> None:
    tag = f"out-{time.time_ns()}"
    import_id = create(api, source="till3")
    api.put(f"/v1/imports/{import_id}/file", content=b"".join(orders(tag, CUSTOMERS)))
    ended(api, import_id)
    body = {
        "format": "EXPORT_FORMAT_CSV",
        "fields": ["EXPORT_FIELD_IDENTIFIERS", "EXPORT_FIELD_REVENUE"],
        "profiles": [f"user_id:{tag}-{number}" for number in range(CUSTOMERS)],
    }
    answer = api.post("/v1/exports", json=body)
    assert answer.status_code == 200, answer.text
    export_id = answer.json()["exportJob"]["exportId"]
    platform.supervisor.kill("profile")
    platform.supervisor.wait_until_healthy(60)
    until = time.monotonic() + PATIENCE_SECONDS
    while patiently(api, f"/v1/exports/{export_id}")["exportJob"]["state"] != "EXPORT_STATE_COMPLETED":
        assert time.monotonic() < until
        time.sleep(0.1)
    whole = api.get(f"/v1/exports/{export_id}/file")
    assert whole.headers["content-type"] == "text/csv; charset=utf-8"
    assert whole.headers["content-disposition"] == f'attachment; filename="{export_id}.csv"'
    lines = list(csv.DictReader(io.StringIO(whole.text)))
    assert {line["user_id"] for line in lines} == {f"{tag}-{number}" for number in range(CUSTOMERS)}
    rest = api.get(f"/v1/exports/{export_id}/file", headers={"Range": "bytes=100-"})
    assert (rest.status_code, rest.content) == (206, whole.content[100:])
    assert rest.headers["content-range"] == f"bytes 100-{len(whole.content) - 1}/{len(whole.content)}"
    late = api.get(f"/v1/exports/{export_id}/file", headers={"Range": f"bytes={len(whole.content)}-"})
    assert late.status_code == 416
