# SPDX-License-Identifier: Apache-2.0
"""Who may send webhooks, and what becomes of them: `DANGOL_INCOMING_WEBHOOKS`, a JSON list."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated

from chassis.keys import SourceName
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from gateway.webhooks.mapping import Rule
from gateway.webhooks.signatures import HmacScheme, StandardScheme


class Source(BaseModel):
    """One third party."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: SourceName
    """Last part of the address; stored with every event as its `source`."""
    signature: Annotated[StandardScheme | HmacScheme, Field(discriminator="scheme")]
    """How the sender proves who it is."""
    rules: tuple[Rule, ...] = Field(min_length=1, max_length=100)
    """What its JSON becomes; every rule that holds makes its events."""
    max_body_bytes: int = Field(2**20, ge=1024, le=2**25)
    """Largest body."""
    max_event_bytes: int = Field(32 * 1024, ge=1024, le=2**20)
    """Largest event that may become of it."""


def read_sources(text: str) -> Mapping[str, Source]:
    """Read the setting; raises ValueError that names it and shows no secret."""
    try:
        sources = TypeAdapter(list[Source]).validate_python(json.loads(text))
    except ValidationError as error:
        # Written anew, because pydantic shows what it was given, and that holds secrets.
        wrong = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_input=False))
        raise ValueError(f"DANGOL_INCOMING_WEBHOOKS: {'; '.join(wrong)}") from None
    except ValueError as error:
        raise ValueError(f"DANGOL_INCOMING_WEBHOOKS: {error}") from None
    by_name = {source.name: source for source in sources}
    if len(by_name) < len(sources):
        raise ValueError("DANGOL_INCOMING_WEBHOOKS: two sources have the same name")
    return by_name
