# SPDX-License-Identifier: Apache-2.0
"""What svc-profile reads from the environment."""

from typing import ClassVar

from chassis.settings import ServiceSettings
from pydantic import Field


class Settings(ServiceSettings):
    """Settings of svc-profile."""

    service: ClassVar[str] = "profile"

    port: int = Field(9101, validation_alias="DANGOL_PROFILE_PORT")
    """Port of gRPC."""
    batch_messages: int = Field(32, ge=1, validation_alias="DANGOL_PROFILE_BATCH_MESSAGES")
    """Most collected messages in one transaction."""
    seen_days: int = Field(8, ge=8, validation_alias="DANGOL_PROFILE_SEEN_DAYS")
    """Days for which a repeated event is recognised; longer than the 7 days for which the stream can bring it back."""
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
