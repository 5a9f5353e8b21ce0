# SPDX-License-Identifier: Apache-2.0
"""What makes a fragment take the slow path when it owns events; nearly every fragment has none of these.

Whoever changes the state behind a flag sets it on the fragment in the same transaction, so that the fold, which locks
the row anyway, learns of it for nothing.
"""

VERSION = 256
"""The bits from here on count changes of what lies behind the flags: a fold that was prepared before one is refused."""

SHARED = 1
"""A device on which several known users have logged in: who was there at the time has to be looked up."""
REFUSED = 2
"""The customer has not granted the purpose of analytics, or had not at some time."""
RESTRICTED = 4
"""The customer has restricted processing, or objected to it."""
REBUILT = 8
"""What was learnt lies under another fragment, because it had to be derived anew."""
SUPPRESSED = 16
"""The customer is being erased, or was and the identifier is new again: nothing is learnt under it."""
