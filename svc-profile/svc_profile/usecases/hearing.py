# SPDX-License-Identifier: Apache-2.0
"""Remember what other services say about customers."""

from collections.abc import Sequence

from chassis.database import Transaction

from svc_profile.domain.heard import Feedback, MembershipChange, StageChange
from svc_profile.store.heard import HeardStore


async def change_memberships(tx: Transaction, changes: Sequence[MembershipChange]) -> None:
    """Know who entered and left segments."""
    await HeardStore(tx).change_memberships(changes)


async def name_segments(tx: Transaction, names: Sequence[tuple[str, str, int]]) -> None:
    """Know what segments are called."""
    await HeardStore(tx).name_segments(names)


async def forget_segments(tx: Transaction, names: Sequence[tuple[str, str]]) -> None:
    """Let segments have no members any more."""
    await HeardStore(tx).forget_segments(names)


async def change_stages(tx: Transaction, changes: Sequence[StageChange]) -> None:
    """Know where customers stand."""
    await HeardStore(tx).change_stages(changes)


async def hear_feedback(tx: Transaction, feedback: Sequence[Feedback]) -> None:
    """Know that customers said something."""
    await HeardStore(tx).put_feedback(feedback)
