# SPDX-License-Identifier: Apache-2.0
"""Who is calling, and what they may do: API keys in headers, scopes, origins."""

from __future__ import annotations

import binascii
from base64 import b64decode

from chassis.keys import ApiKey, Keyring
from chassis.tokens import Caller
from grpc import StatusCode
from starlette.types import Scope

from gateway.errors import Refusal
from gateway.exchange import header

INGEST_SCOPE = "events.write"
VISITOR_NAMESPACE = "anonymous_id:"


def presented_secret(scope: Scope) -> tuple[str, bool]:
    """Return the key that the headers carry, and whether it must be one of ours.

    Basic with the key as user name (also without the colon), or `X-API-Key`. A bearer token may also be somebody
    else's (OAuth of Segment's clients), and then the write key in the body counts.
    """
    own = header(scope, b"x-api-key")
    if own is not None:
        return own.decode("latin-1").strip(), True
    authorization = header(scope, b"authorization")
    if authorization is None:
        return "", False
    scheme, _, rest = authorization.decode("latin-1").strip().partition(" ")
    if scheme.lower() == "basic":
        return _basic_user(rest.strip()), True
    if scheme.lower() == "bearer":
        return rest.strip(), False
    return "", False


def _basic_user(text: str) -> str:
    try:
        decoded = b64decode(text, validate=True).decode("latin-1")
    except (binascii.Error, ValueError):
        return text.partition(":")[0]
    return decoded.partition(":")[0]


class Gatekeeper:
    """Knows the keys and what each may do."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def ingest_key(self, scope: Scope) -> ApiKey | None:
        """Return the key of an ingest request as far as its headers tell; None when the body has to."""
        secret, is_ours = presented_secret(scope)
        if not secret:
            return None
        key = self._keyring.find(secret)
        if key is None and is_ours:
            raise unauthenticated()
        return self._may_ingest(key, scope) if key else None

    def ingest_key_of_body(self, write_key: str, scope: Scope) -> ApiKey:
        """Return the key that the body of an ingest request names."""
        key = self._keyring.find(write_key) if write_key else None
        if key is None:
            raise unauthenticated()
        return self._may_ingest(key, scope)

    def caller(self, scope: Scope) -> ApiKey:
        """Return the key of a call to a service."""
        secret, _ = presented_secret(scope)
        key = self._keyring.find(secret) if secret else None
        if key is None:
            raise unauthenticated()
        self._check_origin(key, scope)
        return key

    def write_key(self, secret: str) -> ApiKey | None:
        """Return a write key that is asked for by itself, in a path."""
        key = self._keyring.find(secret)
        return key if key and key.kind == "write" else None

    def allows_origin(self, origin: str) -> bool:
        """Tell whether any write key may be used from an origin; a pre-flight does not say which one it is for."""
        return any(key.kind == "write" and key.allows_origin(origin) for key in self._keyring.keys)

    def _may_ingest(self, key: ApiKey, scope: Scope) -> ApiKey:
        self._check_origin(key, scope)
        if key.kind != "write":
            check_scope(key, INGEST_SCOPE)
        return key

    def _check_origin(self, key: ApiKey, scope: Scope) -> None:
        if key.kind != "write":
            return
        origin = header(scope, b"origin")
        if origin is not None and not key.allows_origin(origin.decode("latin-1")):
            raise forbidden("ORIGIN_NOT_ALLOWED", "the key may not be used from this origin")


def check_scope(key: ApiKey, scope: str) -> None:
    """Raise unless a secret key holds a scope."""
    if not Caller(key.id, key.scopes).may(scope):
        raise forbidden("SCOPE_MISSING", f"the key lacks the scope {scope}", scope=scope)


def check_visitor(key: ApiKey, reference: str, *, is_open_to_visitors: bool) -> None:
    """Raise unless a write key asks for an anonymous visitor with a method that is open to visitors."""
    if not is_open_to_visitors:
        raise forbidden("SECRET_KEY_NEEDED", "a write key may only ingest and ask for its own visitor")
    if not reference.startswith(VISITOR_NAMESPACE):
        raise forbidden(
            "SECRET_KEY_NEEDED", f"a write key may only ask for {VISITOR_NAMESPACE}… profiles", field="profile"
        )


def unauthenticated() -> Refusal:
    """Return the answer to a request that carries no key of ours."""
    return Refusal(401, StatusCode.UNAUTHENTICATED, "UNKNOWN_KEY", "send a known API key")


def forbidden(reason: str, message: str, **metadata: str) -> Refusal:
    """Return the answer to a known key that may not do this."""
    return Refusal(403, StatusCode.PERMISSION_DENIED, reason, message, metadata=metadata)
