# SPDX-License-Identifier: Apache-2.0
"""Keep, tell and forget events that were not taken."""

from collections.abc import Sequence

from chassis.database import Transaction

from svc_profile.domain.rejects import RejectedEvent
from svc_profile.store.rejected import Filter, RejectedStore

_FORGET_AT_ONCE = 20_000


async def keep_rejected(tx: Transaction, events: Sequence[RejectedEvent]) -> None:
    """Keep events that the gateway did not take."""
    await RejectedStore(tx).put(events)


async def list_rejected(
    tx: Transaction, wanted: Filter, *, before: tuple[int, int] | None, most: int
) -> list[tuple[tuple[int, int], RejectedEvent]]:
    """Return events that were not taken, newest first, each with its position in the list."""
    return await RejectedStore(tx).page(wanted, before=before, most=most)


async def forget_rejected(tx: Transaction, before_us: int) -> bool:
    """Forget some rejected events that are past their time; tells whether there may be more."""
    return await RejectedStore(tx).forget(before_us=before_us, most=_FORGET_AT_ONCE) == _FORGET_AT_ONCE
