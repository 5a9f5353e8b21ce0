# SPDX-License-Identifier: Apache-2.0
"""Caller tokens: who calls a service and with which scopes, signed (JWT, RFC 7519, HS256)."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import jwt

from chassis.errors import Unauthenticated

AUDIENCE = "dangol"


@dataclass(frozen=True)
class Caller:
    """Who is calling and what they may do; the scope `*` may do everything, `profile.*` all of profile."""

    name: str
    scopes: frozenset[str]
    expires: float = float("inf")

    def may(self, scope: str) -> bool:
        """Tell whether the caller holds a scope."""
        service = scope.partition(".")[0]
        return not self.scopes.isdisjoint((scope, f"{service}.*", "*"))


class TokenSigner:
    """Signs and verifies caller tokens with one shared key."""

    def __init__(self, key: str) -> None:
        if len(key) < 32:
            raise ValueError("DANGOL_TOKEN_KEY must be at least 32 characters")
        self._key = key
        # Callers reuse one token for minutes, so its signature is worth checking once.
        self._verified = lru_cache(maxsize=1024)(self._decode)

    def sign(self, caller: str, scopes: Iterable[str], lifetime_s: float = 300) -> str:
        """Return a token for a caller, valid for `lifetime_s` seconds."""
        claims = {
            "sub": caller,
            "scope": " ".join(sorted(scopes)),
            "aud": AUDIENCE,
            "exp": time.time() + lifetime_s,
        }
        return jwt.encode(claims, self._key, algorithm="HS256")

    def verify(self, token: str) -> Caller:
        """Read a token; raises `Unauthenticated` when it is forged, malformed or has expired."""
        caller = self._verified(token)
        if caller.expires < time.time():
            raise Unauthenticated("the caller token has expired")
        return caller

    def _decode(self, token: str) -> Caller:
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=["HS256"],
                audience=AUDIENCE,
                options={"require": ["sub", "exp", "aud"], "verify_exp": False},
            )
        except jwt.InvalidTokenError as error:
            raise Unauthenticated("the caller token is not valid") from error
        return Caller(claims["sub"], frozenset(claims.get("scope", "").split()), float(claims["exp"]))
