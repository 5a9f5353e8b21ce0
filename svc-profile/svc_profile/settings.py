# SPDX-License-Identifier: Apache-2.0
"""What svc-profile reads from the environment."""

import re
from typing import ClassVar

from chassis.settings import ServiceSettings
from pydantic import Field, field_validator

_NAMESPACE = re.compile(r"[a-z][a-z0-9_]{0,62}")
_NOT_FROM_TRAITS = frozenset({"user_id", "anonymous_id"})


class Settings(ServiceSettings):
    """Settings of svc-profile."""

    service: ClassVar[str] = "profile"

    port: int = Field(9101, validation_alias="DANGOL_PROFILE_PORT")
    """Port of gRPC."""
    identifier_traits: dict[str, str] = Field({}, validation_alias="DANGOL_PROFILE_IDENTIFIER_TRAITS")
    """Further traits of `identify` that are identifiers, with their namespace, strongest first, as JSON."""
    batch_messages: int = Field(32, ge=1, validation_alias="DANGOL_PROFILE_BATCH_MESSAGES")
    """Most collected messages in one transaction."""
    seen_days: int = Field(8, ge=8, validation_alias="DANGOL_PROFILE_SEEN_DAYS")
    """Days for which a repeated event is recognised; longer than the 7 days for which the stream can bring it back."""
    rejected_days: int = Field(30, ge=1, validation_alias="DANGOL_PROFILE_REJECTED_DAYS")
    """Days for which rejected events are kept."""

    @field_validator("identifier_traits")
    @classmethod
    def _usable_namespaces(cls, value: dict[str, str]) -> dict[str, str]:
        for namespace in value.values():
            if not _NAMESPACE.fullmatch(namespace) or namespace in _NOT_FROM_TRAITS:
                raise ValueError(f"{namespace} is no namespace for a trait: lower case, not user_id, not anonymous_id")
        return value
