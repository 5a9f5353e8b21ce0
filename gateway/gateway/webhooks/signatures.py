# SPDX-License-Identifier: Apache-2.0
"""Whether a webhook comes from who it says: HMAC-SHA256 over the body as it came, compared in constant time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Literal, Self

from chassis.incoming.times import NOT_GIVEN, read_time
from grpc import StatusCode
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from gateway.errors import Refusal

FindHeader = Callable[[str], str | None]

_STRICT = ConfigDict(frozen=True, extra="forbid")
_STANDARD_PREFIX = "whsec_"
_MAX_ID_LENGTH = 256
_MIN_SECRET_BYTES = 16
_TIME = re.compile(r"[0-9T:.Z+-]{1,40}")


def _header_name(name: str) -> str:
    return name.strip().lower()


HeaderName = Annotated[str, AfterValidator(_header_name)]


class StandardScheme(BaseModel):
    """Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature: v1,<base64> …`."""

    model_config = _STRICT
    scheme: Literal["standard"] = "standard"
    secrets: tuple[SecretStr, ...] = Field(min_length=1, max_length=2)
    """`whsec_` and base64; two while the secret is being rotated."""
    tolerance_seconds: int = Field(300, ge=1, le=3600)
    """How far the time of the signature may be from now."""

    @field_validator("secrets")
    @classmethod
    def _secrets_are_base64(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in value:
            _long_enough(_standard_key(secret))
        return value

    def verify(self, header: FindHeader, body: bytes, now: float) -> str:
        """Return the id of the delivery; raises `Refusal`."""
        delivery, timestamp = header("webhook-id") or "", header("webhook-timestamp") or ""
        if not delivery or len(delivery) > _MAX_ID_LENGTH or "." in delivery:
            raise _refuse("webhook-id is missing or not usable")
        _check_time(timestamp, now, self.tolerance_seconds)
        signed = f"{delivery}.{timestamp}.".encode() + body
        given = [part[3:] for part in (header("webhook-signature") or "").split() if part.startswith("v1,")]
        _check(signed, map(_standard_key, self.secrets), [_from_base64(text) for text in given])
        return delivery


class HmacScheme(BaseModel):
    """What most others do: one header with the HMAC of the body, hexadecimal or base64, perhaps with a prefix."""

    model_config = _STRICT
    scheme: Literal["hmac-sha256"]
    secrets: tuple[SecretStr, ...] = Field(min_length=1, max_length=2)
    """As the sender shows them; two while the secret is being rotated."""
    header: HeaderName
    """Where the signature is: `X-Hub-Signature-256`, `X-Shopify-Hmac-Sha256`…"""
    prefix: str = ""
    """What stands before the signature: `sha256=`."""
    encoding: Literal["hex", "base64"] = "hex"
    timestamp_header: HeaderName = ""
    """Where the time of the signature is, for senders that sign one."""
    signed: str = "{body}"
    """What is signed: `{body}`, or `v0:{timestamp}:{body}` and the like."""
    tolerance_seconds: int = Field(300, ge=1, le=3600)
    """How far the time of the signature may be from now."""

    @field_validator("secrets")
    @classmethod
    def _secrets_are_long_enough(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in value:
            _long_enough(secret.get_secret_value().encode())
        return value

    @model_validator(mode="after")
    def _what_is_signed_fits(self) -> Self:
        if self.signed.count("{body}") != 1:
            raise ValueError("signed: must hold {body} once")
        if ("{timestamp}" in self.signed) != bool(self.timestamp_header):
            raise ValueError("signed: must hold {timestamp} when there is a timestamp_header, and only then")
        return self

    def verify(self, header: FindHeader, body: bytes, now: float) -> str:
        """Return the id of the delivery: a digest of what was signed, because no header is; raises `Refusal`."""
        timestamp = ""
        if self.timestamp_header:
            timestamp = header(self.timestamp_header) or ""
            _check_time(timestamp, now, self.tolerance_seconds)
        before, _, after = self.signed.replace("{timestamp}", timestamp).partition("{body}")
        signed = before.encode() + body + after.encode()
        parts = [part.strip() for part in (header(self.header) or "").split(",")]
        given = [part[len(self.prefix) :] for part in parts if part.startswith(self.prefix)]
        decode = _from_hex if self.encoding == "hex" else _from_base64
        _check(
            signed, (secret.get_secret_value().encode() for secret in self.secrets), [decode(text) for text in given]
        )
        return hashlib.sha256(body).hexdigest()


def _check(signed: bytes, keys: Iterable[bytes], given: Sequence[bytes]) -> None:
    """Compare every signature with that of every key, so that time tells nothing."""
    expected = [hmac.digest(key, signed, "sha256") for key in keys]
    matches = [hmac.compare_digest(one, other) for one in expected for other in given[:8]]
    if not any(matches):
        raise _refuse("the signature does not fit the body")


def _check_time(timestamp: str, now: float, tolerance: int) -> None:
    """Look at the time that was signed; anything else in it could move the border to the body."""
    signed_us = read_time(timestamp) if _TIME.fullmatch(timestamp) else NOT_GIVEN
    if signed_us == NOT_GIVEN:
        raise _refuse("the time of the signature must be seconds since 1970, or ISO 8601")
    if abs(now - signed_us / 1e6) > tolerance:
        raise _refuse(f"the signature is more than {tolerance} seconds from now")


def _standard_key(secret: SecretStr) -> bytes:
    text = secret.get_secret_value().removeprefix(_STANDARD_PREFIX)
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("must be base64, perhaps after whsec_") from error


def _long_enough(key: bytes) -> None:
    if len(key) < _MIN_SECRET_BYTES:
        raise ValueError(f"must have at least {_MIN_SECRET_BYTES} bytes")


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _from_hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _refuse(message: str) -> Refusal:
    return Refusal(401, StatusCode.UNAUTHENTICATED, "SIGNATURE_INVALID", message)
