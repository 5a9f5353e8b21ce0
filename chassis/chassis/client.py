# SPDX-License-Identifier: Apache-2.0
"""Call a Dangol service: a channel with keepalive, balancing, a caller token, and the current trace."""

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc
from grpc.aio import ClientCallDetails, Metadata, UnaryUnaryClientInterceptor

from chassis import telemetry
from chassis.rpc import MAX_MESSAGE_BYTES
from chassis.tokens import TokenSigner

_LIFETIME_S = 300.0
_RENEW_S = 60.0


class CallerToken(UnaryUnaryClientInterceptor):
    """Puts a caller token and the trace on every call; the token is renewed before it expires."""

    def __init__(self, signer: TokenSigner, caller: str, scopes: Iterable[str]) -> None:
        self._signer = signer
        self._caller = caller
        self._scopes = tuple(scopes)
        self._token = ""
        self._renew_at = 0.0

    async def intercept_unary_unary(
        self,
        continuation: Callable[[ClientCallDetails, Any], Awaitable[Any]],
        client_call_details: ClientCallDetails,
        request: Any,
    ) -> Any:
        """Add the metadata and go on."""
        metadata = Metadata(*(client_call_details.metadata or ()))
        metadata.add("authorization", f"Bearer {self._current()}")
        carrier: dict[str, str] = {}
        telemetry.inject(carrier)
        for name, value in carrier.items():
            metadata.add(name, value)
        details = client_call_details
        return await continuation(
            ClientCallDetails(details.method, details.timeout, metadata, details.credentials, details.wait_for_ready),
            request,
        )

    def _current(self) -> str:
        if time.monotonic() >= self._renew_at:
            self._token = self._signer.sign(self._caller, self._scopes, _LIFETIME_S)
            self._renew_at = time.monotonic() + _LIFETIME_S - _RENEW_S
        return self._token


def channel(target: str, interceptors: Iterable[Any] = ()) -> grpc.aio.Channel:
    """Open a channel to `host:port`; it connects when it is used and balances over all addresses of the name."""
    return grpc.aio.insecure_channel(
        target if "://" in target else f"dns:///{target}",
        options=[
            ("grpc.lb_policy_name", "round_robin"),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.initial_reconnect_backoff_ms", 100),
        ],
        interceptors=list(interceptors),
    )
