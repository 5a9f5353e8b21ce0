# SPDX-License-Identifier: Apache-2.0
"""Why no more of an event is kept than its key."""

from enum import IntEnum


class Fate(IntEnum):
    """What became of an event that is not kept; none is that it never was anybody's."""

    WITHHELD = 1
    """The customer has not agreed to analytics, or has withdrawn."""
    SUPPRESSED = 2
    """The customer was erased, and must not come back."""
    EXPIRED = 3
    """Its time was over."""
    ERASED = 4
    """Its customer was erased, and with the customer all that is known of it."""
    ANONYMISED = 5
    """Its time was over, and what stays is nobody's."""
