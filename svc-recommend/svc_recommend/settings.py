# SPDX-License-Identifier: Apache-2.0
"""What svc-recommend reads from the environment."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from chassis.settings import ServiceSettings
from pydantic import BaseModel, ConfigDict, Field

from svc_recommend.domain.interactions import DEFAULT_WEIGHTS, MAX_WEIGHT, EventWeight, Kind
from svc_recommend.domain.neighbours import Parameters
from svc_recommend.usecases.refreshing import Limits


class Weight(BaseModel):
    """What one kind of event says, as it is written in the settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["viewed", "wanted", "bought", "rated"]
    """What the customer did with the item."""
    weight: float = Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT)
    """How much it says; below 0 against the item, 0 not to heed the event."""


class Settings(ServiceSettings):
    """Settings of svc-recommend."""

    service: ClassVar[str] = "recommend"

    port: int = Field(9103, validation_alias="DANGOL_RECOMMEND_PORT")
    """Port of gRPC."""
    event_weights: dict[str, Weight] = Field({}, validation_alias="DANGOL_RECOMMEND_EVENT_WEIGHTS")
    """Events that name items and what they say, as JSON; they are added to the built-in ones or replace them."""
    batch_messages: int = Field(128, ge=1, validation_alias="DANGOL_RECOMMEND_BATCH_MESSAGES")
    """Most messages of resolved events in one transaction."""
    half_life_days: float = Field(14, ge=7, le=3650, validation_alias="DANGOL_RECOMMEND_HALF_LIFE_DAYS")
    """After how many days an interaction counts half, in popularity and in similarity."""
    shrinkage: float = Field(2, ge=0, validation_alias="DANGOL_RECOMMEND_SHRINKAGE")
    """Number of common customers at which a similarity counts half of its cosine."""
    refresh_items: int = Field(50, ge=1, validation_alias="DANGOL_RECOMMEND_REFRESH_ITEMS")
    """Most neighbourhoods that one run works out, every half second; four times as many when nothing else changed."""
    most_fragments: int = Field(500_000, ge=1000, validation_alias="DANGOL_RECOMMEND_MOST_FRAGMENTS")
    """Most fragments in the refresher's memory; beyond, it learns from a sample of the customers."""
    tolerance: float = Field(0.02, ge=0, validation_alias="DANGOL_RECOMMEND_TOLERANCE")
    """Relative change of an item's popularity from which the neighbourhoods that it is in are worked out anew."""

    def weights(self) -> Mapping[str, EventWeight]:
        """Return what each event says."""
        given = {name: EventWeight(Kind[each.kind.upper()], each.weight) for name, each in self.event_weights.items()}
        return {**DEFAULT_WEIGHTS, **given}

    def parameters(self) -> Parameters:
        """Return how neighbourhoods are made."""
        return Parameters(half_life_days=self.half_life_days, shrinkage=self.shrinkage, tolerance=self.tolerance)

    def limits(self) -> Limits:
        """Return how much the refresher takes on."""
        return Limits(items=self.refresh_items, fragments=self.most_fragments)
