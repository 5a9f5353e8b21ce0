# SPDX-License-Identifier: Apache-2.0
"""A real Chromium, and a web server of pages for it that is another origin than the gateway."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_DRIVERS = ("chromedriver", "chromium.chromedriver")


@dataclass
class Pages:
    """A site that a test makes up."""

    url: str
    gateway: str
    served: dict[str, tuple[str, Mapping[str, str]]] = field(default_factory=dict)

    def add(self, path: str, html: str, **headers: str) -> str:
        """Serve a page, with `GATEWAY` in it standing for the gateway's address; returns its address."""
        text = f"<!doctype html><html lang=ko><meta charset=utf-8>{html}".replace("GATEWAY", self.gateway)
        named = {name.replace("_", "-"): value.replace("GATEWAY", self.gateway) for name, value in headers.items()}
        self.served[path] = (text, named)
        return f"{self.url}{path}"


@contextmanager
def site(gateway: str) -> Iterator[Pages]:
    """Serve pages on a free port: an origin of its own, with nothing stored yet."""
    pages = Pages("", gateway)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            html, headers = pages.served.get(unquote(self.path.partition("?")[0]), ("", {}))
            self.send_response(200)
            self.send_header("content-type", "text/html; charset=utf-8")
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        pages.url = f"http://127.0.0.1:{server.server_port}"
        serving = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        try:
            yield pages
        finally:
            server.shutdown()
            serving.join()


class Browser:
    """Drives Chromium without blocking the loop that the gateway runs in."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self._driver = driver

    async def open(self, url: str) -> None:
        """Go to a page and wait until it has loaded."""
        await asyncio.to_thread(self._driver.get, url)

    async def reload(self) -> None:
        """Load the page again."""
        await asyncio.to_thread(self._driver.refresh)

    async def run(self, script: str, *arguments: Any) -> Any:
        """Run a function body in the page; a promise that it returns is awaited."""
        return await asyncio.to_thread(self._driver.execute_script, script, *arguments)

    async def until(self, expression: str) -> Any:
        """Wait until an expression is truthy in the page."""
        async with asyncio.timeout(30):
            while not (found := await self.run(f"return {expression}")):
                await asyncio.sleep(0.05)
        return found

    async def new_tab(self) -> str:
        """Open a second tab and go on in it; returns a handle of the first."""
        first = self._driver.current_window_handle
        await asyncio.to_thread(self._driver.switch_to.new_window, "tab")
        return first

    async def switch(self, handle: str) -> None:
        """Go on in another tab."""
        await asyncio.to_thread(self._driver.switch_to.window, handle)

    async def close_other_tabs(self) -> None:
        """Leave one empty tab."""
        first, *others = self._driver.window_handles
        for handle in others:
            await self.switch(handle)
            await asyncio.to_thread(self._driver.close)
        await self.switch(first)
        await self.open("about:blank")

    async def block(self, *patterns: str) -> None:
        """Let requests to some addresses fail as they do without a network."""
        await self._devtools("Network.enable", {})
        await self._devtools("Network.setBlockedURLs", {"urls": list(patterns)})

    async def before_pages(self, script: str) -> str:
        """Run a script before any script of every page from now on; returns a handle."""
        added = await self._devtools("Page.addScriptToEvaluateOnNewDocument", {"source": script})
        return str(added["identifier"])

    async def no_longer_before_pages(self, handle: str) -> None:
        """Undo `before_pages`."""
        await self._devtools("Page.removeScriptToEvaluateOnNewDocument", {"identifier": handle})

    async def complaints(self) -> list[str]:
        """Return warnings and errors of the console since the last look."""
        entries = await asyncio.to_thread(self._driver.get_log, "browser")
        return [entry["message"] for entry in entries if "favicon" not in entry["message"]]

    async def _devtools(self, command: str, arguments: dict[str, Any]) -> Any:
        return await asyncio.to_thread(self._driver.execute_cdp_cmd, command, arguments)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium; skips where it is not installed (`make chromium` installs Debian's)."""
    binary, driver = (next(filter(None, map(shutil.which, names)), None) for names in (_BROWSERS, _DRIVERS))
    if binary is None or driver is None:
        pytest.skip("Chromium or its driver is not installed: `make chromium` as root installs Debian's packages")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"intl.accept_languages": "ko-KR,ko"})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options, Service(driver))
    started.set_script_timeout(60)
    try:
        yield Browser(started)
    finally:
        started.quit()


@pytest.fixture(scope="session")
def shared_browser() -> Iterator[Browser]:
    """Start one Chromium for all tests."""
    with chromium() as started:
        yield started


@pytest.fixture
async def browser(shared_browser: Browser) -> AsyncIterator[Browser]:
    """Return a Chromium with one empty tab."""
    await shared_browser.complaints()
    yield shared_browser
    await shared_browser.block()
    await shared_browser.close_other_tabs()
