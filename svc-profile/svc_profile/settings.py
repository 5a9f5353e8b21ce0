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
