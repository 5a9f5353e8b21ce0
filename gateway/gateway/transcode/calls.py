# SPDX-License-Identifier: Apache-2.0
"""Calls to the services: one balanced channel each, a signed caller token, deadlines, retries where they are safe."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import grpc
from chassis.keys import ApiKey
from chassis.tokens import TokenSigner
from google.protobuf.message import Message

from chassis import telemetry
from gateway.settings import SERVICES, Settings
from gateway.transcode.complete import complete
from gateway.transcode.contract import Method
from gateway.transcode.gather import Ask, gather

MAX_MESSAGE_BYTES = 16 * 2**20
TOKEN_LIFETIME_S = 300.0
_RENEW_BEFORE_S = 60.0

Metadata = tuple[tuple[str, str], ...]


class Tokens:
    """Caller tokens by key and scopes; each is signed once and used for minutes."""

    def __init__(self, signer: TokenSigner) -> None:
        self._signer = signer
        self._tokens: dict[tuple[str, frozenset[str]], tuple[str, float]] = {}

    def bearer(self, key: ApiKey, scopes: frozenset[str]) -> str:
        """Return the `authorization` of a call on behalf of a key."""
        found = self._tokens.get((key.id, scopes))
        if found is None or found[1] < time.monotonic():
            token = self._signer.sign(f"key:{key.id}", scopes, TOKEN_LIFETIME_S)
            found = (f"Bearer {token}", time.monotonic() + TOKEN_LIFETIME_S - _RENEW_BEFORE_S)
            self._tokens[key.id, scopes] = found
        return found[0]


class Services:
    """The services behind the gateway."""

    def __init__(self, settings: Settings, methods: Sequence[Method]) -> None:
        self._settings = settings
        self._methods = methods
        self._tokens = Tokens(TokenSigner(settings.token_key.get_secret_value()))
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._calls: dict[tuple[str, str], Any] = {}

    def open(self) -> None:
        """Make the channels; each connects when it is first used, and again when its service comes back."""
        for name in SERVICES:
            methods = [method for method in self._methods if name in method.served_by(SERVICES)]
            self._channels[name] = self._channel(self._settings.address_of(name), methods)
            for method in methods:
                self._calls[name, method.path] = self._channels[name].unary_unary(
                    method.path,
                    request_serializer=method.request_class.SerializeToString,
                    response_deserializer=method.response_class.FromString,
                )

    async def close(self) -> None:
        """Close the channels."""
        for channel in self._channels.values():
            await channel.close()

    async def call(self, method: Method, request: Message, key: ApiKey) -> Message:
        """Call a method on behalf of a key; raises `grpc.aio.AioRpcError`."""
        # A write key holds no scopes; it was let through because this one method is open to visitors.
        scopes = key.scopes if key.kind == "secret" else frozenset((method.scope,))
        carrier = {"authorization": self._tokens.bearer(key, scopes)}
        telemetry.inject(carrier)
        metadata = tuple(carrier.items())
        answer = await self._answer(method, request, metadata)
        if method.completion is not None:
            ask = partial(self._answer, method.completion.method, metadata=metadata)
            await complete(method.completion, answer, ask)
        return answer

    async def _answer(self, method: Method, request: Message, metadata: Metadata) -> Message:
        names = method.served_by(SERVICES)

        async def ask(name: str, request: Message) -> Message:
            answer: Message = await self._calls[name, method.path](
                request, timeout=self._settings.rpc_seconds, metadata=metadata
            )
            return answer

        if method.is_gathered:
            return await gather(method, request, names, ask)
        return await _ask_any(names if method.is_idempotent else names[:1], request, ask)

    def _channel(self, address: str, methods: Iterable[Method]) -> grpc.aio.Channel:
        target = address if "://" in address else f"dns:///{address}"
        options = [
            ("grpc.service_config", service_config(methods)),
            ("grpc.enable_retries", 1),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ]
        credentials = self._credentials()
        if credentials is None:
            return grpc.aio.insecure_channel(target, options=options)
        return grpc.aio.secure_channel(target, credentials, options=options)

    def _credentials(self) -> grpc.ChannelCredentials | None:
        settings = self._settings
        if settings.grpc_tls_ca is None:
            return None
        return grpc.ssl_channel_credentials(
            root_certificates=settings.grpc_tls_ca.read_bytes(),
            private_key=settings.grpc_tls_key.read_bytes() if settings.grpc_tls_key else None,
            certificate_chain=settings.grpc_tls_certificate.read_bytes() if settings.grpc_tls_certificate else None,
        )


async def _ask_any(names: Sequence[str], request: Message, ask: Ask) -> Message:
    """Ask the first service that can be reached, of those that answer alike."""
    for name in names[:-1]:
        try:
            return await ask(name, request)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
    return await ask(names[-1], request)


def service_config(methods: Iterable[Method]) -> str:
    """Return gRPC's service config: balance over all addresses, retry only what may be called twice."""
    idempotent = [{"service": m.service, "method": m.name} for m in methods if m.is_idempotent]
    retries = {
        "name": idempotent,
        "retryPolicy": {
            "maxAttempts": 3,
            "initialBackoff": "0.05s",
            "maxBackoff": "0.5s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        },
    }
    return json.dumps({"loadBalancingConfig": [{"round_robin": {}}], "methodConfig": [retries] if idempotent else []})
