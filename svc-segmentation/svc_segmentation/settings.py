# SPDX-License-Identifier: Apache-2.0
"""What svc-segmentation reads from the environment."""

import re
from typing import ClassVar

from chassis.settings import ServiceSettings
from pydantic import Field, field_validator

ALWAYS_SUMMED = ("revenue", "value", "quantity", "price", "total")
"""Properties that are summed in every installation."""

_PROPERTY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")


class Settings(ServiceSettings):
    """Settings of svc-segmentation."""

    service: ClassVar[str] = "segmentation"

    port: int = Field(9102, validation_alias="DANGOL_SEGMENTATION_PORT")
    """Port of gRPC."""
    properties: tuple[str, ...] = Field((), validation_alias="DANGOL_SEGMENTATION_PROPERTIES")
    """Further numeric properties of events that rules can sum, as a JSON list; events count from then on."""
    batch_messages: int = Field(64, ge=1, validation_alias="DANGOL_SEGMENTATION_BATCH_MESSAGES")
    """Most messages of resolved events in one transaction."""
    evaluation_batch: int = Field(2_000, ge=1, le=100_000, validation_alias="DANGOL_SEGMENTATION_EVALUATION_BATCH")
    """Most changed fragments that are evaluated in one transaction."""
    population_batch: int = Field(10_000, ge=1, validation_alias="DANGOL_SEGMENTATION_POPULATION_BATCH")
    """Profiles that are evaluated in one transaction when a rule is new."""
    evaluation_pause_ms: int = Field(50, ge=1, validation_alias="DANGOL_SEGMENTATION_EVALUATION_PAUSE_MS")
    """Pause between evaluations: events of one customer within it cost one evaluation."""

    @field_validator("properties")
    @classmethod
    def _usable_properties(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not _PROPERTY.fullmatch(name):
                raise ValueError(f"{name!r} cannot be summed: letters, digits and _, at most 100")
        return value

    @property
    def summed_properties(self) -> frozenset[str]:
        """All properties that rules can sum."""
        return frozenset((*ALWAYS_SUMMED, *self.properties))
