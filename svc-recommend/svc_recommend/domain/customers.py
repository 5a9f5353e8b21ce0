# SPDX-License-Identifier: Apache-2.0
"""Who is who, as svc-profile says."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Placement:
    """Which profile a fragment belongs to; the highest revision counts."""

    profile_id: bytes
    revision: int
