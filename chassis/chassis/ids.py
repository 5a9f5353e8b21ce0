# SPDX-License-Identifier: Apache-2.0
"""Resource ids: a prefix and a ULID (github.com/ulid/spec), so that ids sort by time of creation."""

import os
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_ulid() -> str:
    """Return 26 characters: 48 bits of milliseconds, 80 bits of chance."""
    number = time.time_ns() // 1_000_000 << 80 | int.from_bytes(os.urandom(10))
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))


def new_id(prefix: str) -> str:
    """Return `<prefix>_<ULID>`."""
    return f"{prefix}_{new_ulid()}"
