# SPDX-License-Identifier: Apache-2.0
"""Who is who, as svc-profile says."""

from dataclasses import dataclass

FragmentKey = bytes
"""The 16 bytes of a fragment's id; as a key of a dictionary they cost a fifth of a UUID."""

CustomerKey = bytes
"""The 16 bytes of a profile's id, which is the id of its earliest fragment."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Which profile a fragment belongs to; the highest revision counts."""

    profile_id: CustomerKey
    revision: int
