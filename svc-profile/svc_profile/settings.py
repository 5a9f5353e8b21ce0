# SPDX-License-Identifier: Apache-2.0
"""What svc-profile reads from the environment."""

import re
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import ClassVar, Literal

from chassis.encryption import EncryptionKeys
from chassis.settings import ServiceSettings
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from svc_profile.domain.legal_hold import Hold, Holds

ANONYMOUS_PROPERTIES = frozenset(
    {
        "brand", "category", "currency", "item_id", "list_id", "position", "price", "product_id", "products",
        "quantity", "revenue", "shipping", "sku", "tax", "total", "value", "variant",
    }
)  # fmt: skip
"""What an anonymised event keeps of its properties: what was dealt with and for how much."""


class LegalHold(BaseModel):
    """Events that a law demands to be kept, as it is written in the settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    event: str = Field(min_length=1, max_length=255)
    """Name that they are counted under."""
    days: int = Field(ge=1, le=36_500)
    """Days after the event for which they are kept."""
    law: str = Field(min_length=1, max_length=500)
    """The law that demands it, for the customer to read on the certificate."""


class Settings(ServiceSettings):
    """Settings of svc-profile."""

    service: ClassVar[str] = "profile"

    port: int = Field(9101, validation_alias="DANGOL_PROFILE_PORT")
    """Port of gRPC."""
    postgres_pool: int = Field(12, ge=1)
    """Connections of one process: four each for what is collected and imported, the others for whoever reads."""
    batch_messages: int = Field(32, ge=1, validation_alias="DANGOL_PROFILE_BATCH_MESSAGES")
    """Most collected messages in one transaction."""
    seen_days: int = Field(8, ge=8, validation_alias="DANGOL_PROFILE_SEEN_DAYS")
    """Days for which a repeated event is recognised; longer than the 7 days for which the stream can bring it back."""
    without_analytics: Literal["drop", "anonymise"] = Field("drop", validation_alias="DANGOL_PROFILE_WITHOUT_ANALYTICS")
    """What becomes of an event whose customer has not granted analytics: nothing, or a count without a person."""
    anonymous_properties: frozenset[str] = Field(
        ANONYMOUS_PROPERTIES, validation_alias="DANGOL_PROFILE_ANONYMOUS_PROPERTIES"
    )
    """Properties that an anonymised event keeps, as JSON."""
    consent_notice_days: int = Field(30, ge=1, validation_alias="DANGOL_PROFILE_CONSENT_NOTICE_DAYS")
    """Days before a consent expires at which it is announced, so that it can be asked for again."""
    rejected_days: int = Field(30, ge=1, validation_alias="DANGOL_PROFILE_REJECTED_DAYS")
    """Days for which rejected events are kept."""
    max_merge_fragments: int = Field(100_000, ge=2, validation_alias="DANGOL_PROFILE_MAX_MERGE_FRAGMENTS")
    """Most identifiers of a customer whom somebody merges or splits."""
    lease_seconds: float = Field(15, gt=0, validation_alias="DANGOL_PROFILE_LEASE_SECONDS")
    """Time after which an import or export whose process died goes on in another."""
    upload_days: int = Field(7, ge=1, validation_alias="DANGOL_PROFILE_UPLOAD_DAYS")
    """Days after which an import that is not complete, was paused or has failed is ended, and its file forgotten."""
    transfer_days: int = Field(90, ge=1, validation_alias="DANGOL_PROFILE_TRANSFER_DAYS")
    """Days for which imports and exports that have ended are listed, with their rejected rows."""
    export_hours: int = Field(24, ge=1, validation_alias="DANGOL_PROFILE_EXPORT_HOURS")
    """Hours for which the file of an export can be fetched."""
    webhook_allow_nets: tuple[str, ...] = Field((), validation_alias="DANGOL_PROFILE_WEBHOOK_ALLOW_NETS")
    """Networks inside, such as `["10.1.0.0/16"]` as JSON, that webhooks may be sent to, there also without TLS."""
    webhook_timeout_seconds: float = Field(15, gt=0, le=50, validation_alias="DANGOL_PROFILE_WEBHOOK_TIMEOUT_SECONDS")
    """How long a receiver of a webhook may take to answer."""
    webhook_retry_seconds: tuple[float, ...] = Field(
        (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400),
        min_length=1,
        validation_alias="DANGOL_PROFILE_WEBHOOK_RETRY_SECONDS",
    )
    """Waits after failed attempts, three days in all, as JSON; each is spread by a fifth."""
    webhook_days: int = Field(14, ge=4, validation_alias="DANGOL_PROFILE_WEBHOOK_DAYS")
    """Days for which webhooks are kept, to be looked at and to be sent again."""

    signing_key: SecretStr = Field(SecretStr(""), validation_alias="DANGOL_PROFILE_SIGNING_KEY")
    """Secret with which certificates of erasure are signed: the 32 bytes of an Ed25519 key, 64 hexadecimal digits."""
    privacy_regime: Literal["PIPA", "GDPR"] = Field("PIPA", validation_alias="DANGOL_PROFILE_PRIVACY_REGIME")
    """The law that sets the due time of a data request that names none: 10 days, or one month."""
    personal_services: tuple[str, ...] = Field(
        ("profile", "segmentation", "recommend", "feedback", "metrics"),
        validation_alias="DANGOL_PROFILE_PERSONAL_SERVICES",
    )
    """Services that keep personal data, as JSON: an erasure is done when all of them have answered."""
    encryption_keys: dict[str, SecretStr] = Field({}, validation_alias="DANGOL_PROFILE_ENCRYPTION_KEYS")
    """Keys that data at rest are encrypted with, by name, as JSON: 64 hexadecimal digits each, current one first."""
    legal_holds: tuple[LegalHold, ...] = Field((), validation_alias="DANGOL_PROFILE_LEGAL_HOLDS")
    """Events that an erasure sets apart instead of destroying them, as JSON."""
    export_days: int = Field(14, ge=1, validation_alias="DANGOL_PROFILE_EXPORT_DAYS")
    """Days for which the file of an access request can be downloaded."""

    @field_validator("encryption_keys")
    @classmethod
    def _usable_keys(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, key in value.items():
            if not name or not re.fullmatch("[0-9a-fA-F]{64}", key.get_secret_value()):
                raise ValueError("each key must have a name and be 64 hexadecimal digits")
        return value

    @field_validator("legal_holds")
    @classmethod
    def _one_hold_each(cls, value: tuple[LegalHold, ...]) -> tuple[LegalHold, ...]:
        if len({hold.event for hold in value}) < len(value):
            raise ValueError("an event may be named once: name it with the longest time")
        return value

    @field_validator("webhook_allow_nets")
    @classmethod
    def _usable_nets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for net in value:
            ip_network(net)
        return value

    @property
    def counted_properties(self) -> frozenset[str] | None:
        """Properties that are kept when somebody who refuses analytics is counted; None when nobody is."""
        return self.anonymous_properties if self.without_analytics == "anonymise" else None

    def keys_at_rest(self) -> EncryptionKeys:
        """Return the keys that data at rest are encrypted with."""
        return EncryptionKeys({name: bytes.fromhex(k.get_secret_value()) for name, k in self.encryption_keys.items()})

    def holds(self) -> Holds:
        """Return what laws demand."""
        return Holds(Hold(each.event, each.days, each.law) for each in self.legal_holds)

    def webhook_nets(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Return the networks inside that webhooks may be sent to."""
        return tuple(ip_network(net) for net in self.webhook_allow_nets)

    def webhook_key(self) -> bytes:
        """Return the key that the secrets of webhooks are derived from."""
        return bytes.fromhex(self.identity_key.get_secret_value())

    def signing_key_bytes(self) -> bytes:
        """Decode the signing key; local mode has a well-known one. Raises ValueError that names the setting."""
        text = self.signing_key.get_secret_value()
        if not text and self.local:
            return sha256(b"dangol: only for development").digest()
        try:
            key = bytes.fromhex(text)
        except ValueError:
            key = b""
        if len(key) != 32:
            raise ValueError("DANGOL_PROFILE_SIGNING_KEY must be 64 hexadecimal digits")
        return key
