# SPDX-License-Identifier: Apache-2.0
"""What a source of customers hands to the platform: calls of the Segment specification, and things that were said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Call = Literal["identify", "track", "page"]


@dataclass(frozen=True, slots=True)
class Action:
    """One call of a Segment client; the same message id always means the same call."""

    call: Call
    message_id: str
    time: datetime
    anonymous_id: str | None = None
    user_id: str | None = None
    name: str | None = None
    body: Mapping[str, Any] = field(default_factory=dict)
    """Traits of an identify, properties of the others."""
    context: Mapping[str, Any] = field(default_factory=dict)

    @property
    def counted_name(self) -> str:
        """The name that the platform counts it under."""
        return self.name or "" if self.call == "track" else self.call


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing that a customer said, for `POST /v1/feedback`."""

    request_id: str
    time: datetime
    user_id: str
    kind: Literal["REVIEW", "NPS", "COMMENT"]
    text: str
    rating: int | None = None
    item_id: str = ""

    def as_json(self) -> dict[str, Any]:
        """The remark as the API takes it."""
        body: dict[str, Any] = {
            "profile": f"user_id:{self.user_id}",
            "kind": f"FEEDBACK_KIND_{self.kind}",
            "text": self.text,
            "feedbackTime": self.time.isoformat(),
        }
        if self.rating is not None:
            body["rating"] = self.rating
        if self.item_id:
            body["itemId"] = self.item_id
        return body
