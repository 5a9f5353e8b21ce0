# SPDX-License-Identifier: Apache-2.0
"""Tell which links were refused."""

from chassis.database import Transaction

from svc_profile.domain.events import FragmentKey
from svc_profile.domain.identity import Conflict
from svc_profile.store.conflicts import ConflictStore
from svc_profile.usecases.profiles import fragments_of


async def list_conflicts(
    tx: Transaction, *, of: FragmentKey | None, before: tuple[int, FragmentKey, FragmentKey] | None, most: int
) -> list[Conflict]:
    """Return refused links, newest claim first; of one customer when a fragment is named."""
    fragments = None if of is None else await fragments_of(tx, of)
    return await ConflictStore(tx).page(of=fragments, before=before, most=most)
