# SPDX-License-Identifier: Apache-2.0
"""Calls to the outside: webhooks, to whatever address somebody wrote down, without becoming a way into the own network.

A name is resolved here, every address of it is checked, and the connection goes to the very address that was checked,
so that no second look at the name can lead elsewhere. TLS still asks for the certificate of the name. No redirects, no
proxies, no connection is used twice.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from functools import cached_property
from ipaddress import ip_address

import httpx
from chassis.clock import now
from chassis.errors import Invalid

from svc_profile.domain.addresses import Network, may_be_called
from svc_profile.domain.webhooks import Outcome

_MOST_ANSWER_BYTES = 65_536
_MAX_RETRY_AFTER_S = 86_400.0
_USER_AGENT = "Dangol-Webhooks/1"
_HOST = re.compile(rb"[A-Za-z0-9_.-]{1,254}")
"""A name of the domain name system, with the dot that may stand at its end."""


class ForbiddenAddress(Exception):
    """A name leads to where nobody may be sent."""


class WebhookClient:
    """Posts webhooks."""

    def __init__(
        self, *, timeout_seconds: float, allowed: Sequence[Network], trusted: ssl.SSLContext | None = None
    ) -> None:
        """`trusted` says whose certificates are believed; by default those that browsers believe."""
        self._timeout_s = timeout_seconds
        self._allowed = allowed
        self._trusted = trusted

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return self._trusted or httpx.create_ssl_context()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Outcome:
        """Post once and say how it ended; never raises for what the other side does."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._post(httpx.URL(url), body, headers)
        except ForbiddenAddress:
            return Outcome(0, "the address is not open to the internet")
        except (TimeoutError, httpx.TimeoutException):
            return Outcome(0, f"no answer within {self._timeout_s:g} seconds")
        except socket.gaierror:
            return Outcome(0, "the name of the host cannot be resolved")
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            return Outcome(0, f"cannot be reached: {type(error).__name__}")

    async def _post(self, url: httpx.URL, body: bytes, headers: Mapping[str, str]) -> Outcome:
        port = url.port or (443 if url.scheme == "https" else 80)
        address = await self._checked(url.host, port)
        if url.scheme != "https" and not self._is_allowed(address):
            raise ForbiddenAddress
        request = httpx.Request(
            "POST",
            url.copy_with(host=address, port=port),
            content=body,
            headers={
                **headers,
                "host": url.netloc.decode("ascii"),
                "content-type": "application/json",
                "user-agent": _USER_AGENT,
            },
            extensions={"sni_hostname": url.host, "timeout": httpx.Timeout(self._timeout_s).as_dict()},
        )
        async with httpx.AsyncHTTPTransport(verify=self._tls, retries=0, trust_env=False) as transport:
            response = await transport.handle_async_request(request)
            try:
                await _read_a_little(response)
            finally:
                await response.aclose()
        error = "" if response.is_success else f"answered with {response.status_code}"
        return Outcome(response.status_code, error, _retry_after(response.headers))

    async def _checked(self, host: str, port: int) -> str:
        """Return an address of a host; raises unless every address of it may be called."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(each[4][0]) for each in found]
        if not addresses or not all(may_be_called(address, self._allowed) for address in addresses):
            raise ForbiddenAddress
        return addresses[0]

    def _is_allowed(self, address: str) -> bool:
        ip = ip_address(address)
        return any(ip.version == network.version and ip in network for network in self._allowed)


async def _read_a_little(response: httpx.Response) -> None:
    """Let the other side say what it wants to say, within limits; nobody reads it."""
    size = 0
    async for part in response.aiter_raw():
        size += len(part)
        if size > _MOST_ANSWER_BYTES:
            return


def _retry_after(headers: httpx.Headers) -> float:
    value = headers.get("retry-after", "")
    if value.isdigit():
        return min(float(value[:6]), _MAX_RETRY_AFTER_S)
    try:
        seconds = (parsedate_to_datetime(value) - now()).total_seconds()
    except (ValueError, TypeError):
        return 0
    return min(max(seconds, 0), _MAX_RETRY_AFTER_S)


def check_url(url: str, allowed: Sequence[Network]) -> None:
    """Raise `Invalid` for an address that could never be used; names are resolved when something is sent."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise Invalid.field("webhook_endpoint.url", "must be a URL") from error
    schemes = ("https", "http") if allowed else ("https",)
    if parsed.scheme not in schemes or not parsed.host or parsed.userinfo or parsed.fragment:
        rule = f"must be an absolute {' or '.join(schemes)} URL without user name and fragment"
        raise Invalid.field("webhook_endpoint.url", rule)
    if parsed.port is not None and not 0 < parsed.port < 2**16:
        raise Invalid.field("webhook_endpoint.url", "the port must be from 1 to 65535")
    try:
        is_open = may_be_called(parsed.host, allowed)
    except ValueError:
        if not _HOST.fullmatch(parsed.raw_host):
            raise Invalid.field("webhook_endpoint.url", "the host must be a name of the domain name system") from None
        name = parsed.host.lower().rstrip(".")
        is_open = bool(allowed) or ("." in name and not name.endswith((".localhost", ".internal", ".local")))
    if not is_open:
        raise Invalid.field("webhook_endpoint.url", "must lead to the open internet", reason="ADDRESS_NOT_ALLOWED")
