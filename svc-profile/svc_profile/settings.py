# SPDX-License-Identifier: Apache-2.0
"""What svc-profile reads from the environment."""

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import ClassVar

from chassis.settings import ServiceSettings
from pydantic import Field, field_validator


class Settings(ServiceSettings):
    """Settings of svc-profile."""

    service: ClassVar[str] = "profile"

    port: int = Field(9101, validation_alias="DANGOL_PROFILE_PORT")
    """Port of gRPC."""
    batch_messages: int = Field(32, ge=1, validation_alias="DANGOL_PROFILE_BATCH_MESSAGES")
    """Most collected messages in one transaction."""
    seen_days: int = Field(8, ge=8, validation_alias="DANGOL_PROFILE_SEEN_DAYS")
    """Days for which a repeated event is recognised; longer than the 7 days for which the stream can bring it back."""
    consent_notice_days: int = Field(30, ge=1, validation_alias="DANGOL_PROFILE_CONSENT_NOTICE_DAYS")
    """Days before a consent expires at which it is announced, so that it can be asked for again."""
    rejected_days: int = Field(30, ge=1, validation_alias="DANGOL_PROFILE_REJECTED_DAYS")
    """Days for which rejected events are kept."""
    max_merge_fragments: int = Field(100_000, ge=2, validation_alias="DANGOL_PROFILE_MAX_MERGE_FRAGMENTS")
    """Most identifiers of a customer whom somebody merges or splits."""
    lease_seconds: float = Field(15, gt=0, validation_alias="DANGOL_PROFILE_LEASE_SECONDS")
    """Time after which an import or export whose process died goes on in another."""
    upload_days: int = Field(7, ge=1, validation_alias="DANGOL_PROFILE_UPLOAD_DAYS")
    """Days after which an import whose file never became complete is ended."""
    transfer_days: int = Field(90, ge=1, validation_alias="DANGOL_PROFILE_TRANSFER_DAYS")
    """Days for which imports and exports that have ended are listed, with their rejected rows."""
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

    @field_validator("webhook_allow_nets")
    @classmethod
    def _usable_nets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for net in value:
            ip_network(net)
        return value

    def webhook_nets(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Return the networks inside that webhooks may be sent to."""
        return tuple(ip_network(net) for net in self.webhook_allow_nets)

    def webhook_key(self) -> bytes:
        """Return the key that the secrets of webhooks are derived from."""
        return bytes.fromhex(self.identity_key.get_secret_value())
