# SPDX-License-Identifier: Apache-2.0
"""Webhooks: which endpoint wants what, how a message is signed, when it is tried again.

Signatures follow Standard Webhooks: HMAC-SHA256 over `<webhook-id>.<webhook-timestamp>.<body>`.

Secrets are kept nowhere: each is derived from the platform's identity key, the endpoint and a number that grows when
the secret is changed. So a copy of the database signs nothing.
"""

import hmac
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b, sha256

PREFIX = "whsec_"
GONE = 410

_JITTER = 0.2
_PERSON = b"dangol-webhooks"


class State(IntEnum):
    """What became of a message; the numbers are those of the contract."""

    PENDING = 1
    DELIVERED = 2
    DEAD = 3


@dataclass(frozen=True)
class Endpoint:
    """An address that wants domain events."""

    endpoint_id: str
    url: str
    event_types: tuple[str, ...]
    description: str
    disabled: bool
    disabled_reason: str
    create_time_us: int
    secret_number: int = 1
    """Grows each time the secret is changed."""
    former_secret_until_us: int = 0
    """Until when the secret before signs too."""
    last_success_us: int | None = None

    def wants(self, event_type: str) -> bool:
        """Tell whether a type of event is wanted."""
        return any(_matches(pattern, event_type) for pattern in self.event_types)


def _matches(pattern: str, event_type: str) -> bool:
    if pattern == "*":
        return True
    if pattern.endswith(".*"):
        return event_type.startswith(pattern[:-1])
    return pattern == event_type


@dataclass(frozen=True)
class Message:
    """A domain event as it is sent."""

    webhook_id: str
    event_type: str
    event_time_us: int
    body: bytes


@dataclass(frozen=True)
class Delivery:
    """A message for one endpoint, and what became of it."""

    endpoint_id: str
    message: Message
    state: State
    attempts: int
    last_status: int
    last_error: str
    last_attempt_us: int | None
    next_attempt_us: int


@dataclass(frozen=True)
class Outcome:
    """How one attempt ended."""

    status: int
    """HTTP status; 0 when there was no answer."""
    error: str = ""
    retry_after_seconds: float = 0
    """What the receiver asked for."""

    @property
    def is_success(self) -> bool:
        """True for 2xx."""
        return 200 <= self.status < 300


def secret_of(key: bytes, endpoint_id: str, number: int) -> bytes:
    """Derive the secret of an endpoint: 32 bytes."""
    return blake2b(f"{endpoint_id}:{number}".encode(), key=key[:64], digest_size=32, person=_PERSON).digest()


def written_secret(secret: bytes) -> str:
    """Write a secret the way receivers are given it."""
    return PREFIX + b64encode(secret).decode()


def live_secrets(endpoint: Endpoint, key: bytes, now_us: int) -> list[bytes]:
    """Return the secrets that sign now, the newest first."""
    numbers = [endpoint.secret_number]
    if endpoint.secret_number > 1 and now_us < endpoint.former_secret_until_us:
        numbers.append(endpoint.secret_number - 1)
    return [secret_of(key, endpoint.endpoint_id, number) for number in numbers]


def signed_headers(message: Message, secrets: Sequence[bytes], timestamp: int) -> dict[str, str]:
    """Return the three headers of Standard Webhooks."""
    content = f"{message.webhook_id}.{timestamp}.".encode() + message.body
    signatures = (b64encode(hmac.digest(secret, content, sha256)).decode() for secret in secrets)
    return {
        "webhook-id": message.webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def wait_seconds(delays: Sequence[float], attempts: int, outcome: Outcome, chance: float) -> float | None:
    """Return how long to wait after some attempts, spread by `chance` between 0 and 1; None when there is no next."""
    if attempts > len(delays):
        return None
    delay = delays[attempts - 1] * (1 + _JITTER * (2 * chance - 1))
    return max(delay, min(outcome.retry_after_seconds, delays[-1]))
