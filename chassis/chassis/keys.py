# SPDX-License-Identifier: Apache-2.0
"""API keys: who may use the public API. Settings hold SHA-256 hashes only.

`DANGOL_API_KEYS` is a JSON list such as
`[{"id": "web", "kind": "write", "sha256": ["<64 hex digits>"], "origins": ["https://shop.example"]}]`.
`sha256` may hold two hashes, so that a key can be rotated without a gap.
"""

import hashlib
import json
import time
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

KeyKind = Literal["write", "secret"]


RESERVED_SOURCES = frozenset({"privacy", "staff"})
"""Sources of what customers and staff ask for themselves: taken in whatever was refused, and nobody else's."""


def _not_reserved(source: str) -> str:
    if source in RESERVED_SOURCES:
        raise ValueError(f"{source} is reserved for what the platform does itself")
    return source


SourceName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$"), AfterValidator(_not_reserved)]
"""A name that events come in under."""


class ApiKey(BaseModel):
    """One key of the public API."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: SourceName
    """Name of the key, stored with every event as its `source`; never the key itself."""
    kind: KeyKind
    """`write`: public, in browsers and apps, may ingest and ask for its own visitor. `secret`: for servers."""
    sha256: tuple[str, ...] = Field(min_length=1, max_length=2)
    """Hash of the key; two while it is being rotated."""
    scopes: frozenset[str] = frozenset()
    """Scopes of a secret key; `*` is all."""
    origins: tuple[str, ...] = ("*",)
    """Browser origins that may use a write key."""
    events_per_second: float = Field(0, ge=0)
    """Sustained events a second; 0 is no limit."""
    requests_per_second: float = Field(0, ge=0)
    """Sustained requests a second; 0 is no limit."""
    max_event_bytes: int = Field(32 * 1024, ge=1024, le=2**20)
    """Largest event."""
    max_batch_bytes: int = Field(4_718_592, ge=2**19, le=2**25)
    """Largest batch after inflating; RudderStack's client sends up to 4.5 MiB."""
    expires: float | None = None
    """Seconds since the epoch after which the key is unknown."""

    def allows_origin(self, origin: str) -> bool:
        """Tell whether a browser on this origin may use the key."""
        return "*" in self.origins or origin in self.origins


class Keyring:
    """Finds the API key that a secret belongs to."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self.keys = tuple(keys)
        self._by_hash = {digest.lower(): key for key in self.keys for digest in key.sha256}
        self._by_secret: dict[str, ApiKey] = {}

    @classmethod
    def from_settings(cls, api_keys: str, *, local: bool) -> "Keyring":
        """Read `DANGOL_API_KEYS`; local mode adds the two development keys. Raises ValueError."""
        try:
            keys = TypeAdapter(list[ApiKey]).validate_python(json.loads(api_keys))
        except (ValidationError, ValueError) as error:
            raise ValueError(f"DANGOL_API_KEYS: {error}") from error
        return cls([*keys, *(development_keys() if local else ())])

    def find(self, secret: str) -> ApiKey | None:
        """Return the key of a secret, or None when nobody gave it out or it has expired."""
        key = self._by_secret.get(secret) or self._by_hash.get(sha256(secret))
        if key is None or (key.expires is not None and key.expires < time.time()):
            return None
        # Only secrets that were right are remembered, so the table cannot grow with guesses.
        self._by_secret[secret] = key
        return key


def sha256(secret: str) -> str:
    """Hash a key the way settings hold it."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def development_keys() -> tuple[ApiKey, ApiKey]:
    """Return the well-known keys of local mode: `dk_write_local` and `dk_secret_local`."""
    return (
        ApiKey(id="local-write", kind="write", sha256=(sha256("dk_write_local"),)),
        ApiKey(id="local-secret", kind="secret", sha256=(sha256("dk_secret_local"),), scopes=frozenset({"*"})),
    )
