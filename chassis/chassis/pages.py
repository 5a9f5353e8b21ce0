# SPDX-License-Identifier: Apache-2.0
"""Page tokens: where the next page starts, opaque to the caller (AIP-158)."""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

from chassis.errors import Invalid

DEFAULT_PAGE_SIZE = 100

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""Characters that PostgreSQL has no place for, and no row therefore."""


def page_size(requested: int, default: int = DEFAULT_PAGE_SIZE) -> int:
    """Return the size to use: the default when the caller named none."""
    return requested or default


def encode_token(position: Mapping[str, Any]) -> str:
    """Pack the position of the last row of a page."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")


def decode_token(token: str) -> dict[str, Any]:
    """Unpack what `encode_token` packed; raises `Invalid` on anything else, `{}` for an empty token."""
    if not token:
        return {}
    try:
        position = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (ValueError, binascii.Error):
        position = None
    if not isinstance(position, dict) or any(_UNSTORABLE.search(str(value)) for value in position.values()):
        raise Invalid.field("page_token", "must be the next_page_token of an earlier answer")
    return position
