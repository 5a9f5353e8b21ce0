# SPDX-License-Identifier: Apache-2.0
"""Settings of svc-feedback."""

from typing import ClassVar

from chassis.settings import ServiceSettings
from pydantic import Field


class Settings(ServiceSettings):
    """What svc-feedback reads from the environment."""

    service: ClassVar[str] = "feedback"

    port: int = Field(9104, ge=0, le=65535, validation_alias="DANGOL_FEEDBACK_PORT")
    """Port of gRPC."""
