# SPDX-License-Identifier: Apache-2.0
"""Bring memberships up to date: of those who changed, of those whom time changed, of everybody when a rule is new."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from chassis.clock import to_us
from chassis.database import Database, Transaction
from chassis.errors import NotFound

from svc_segmentation import wire
from svc_segmentation.domain.segments import Judge
from svc_segmentation.store.judging import Statement, asking, settle
from svc_segmentation.store.locks import hold_evaluation
from svc_segmentation.store.memberships import MembershipStore
from svc_segmentation.store.segments import SegmentStore
from svc_segmentation.usecases.rulebook import Rulebook

GRACE = timedelta(minutes=1)
"""How long a new rule is left to the request that brought it."""


async def evaluate_waiting(tx: Transaction, rulebook: Rulebook, *, now: datetime, most: int) -> int:
    """Evaluate some of those who changed or are due; returns `most` when more may be waiting."""
    memberships = MembershipStore(tx)
    if not await memberships.something_waits(to_us(now)):
        return 0
    await hold_evaluation(tx)
    rules = await rulebook.current(tx)
    changed = await memberships.take_changed(most)
    if not rules.rule_set.judges:
        await memberships.forget_due()
        return len(changed)
    due = await memberships.take_due(to_us(now), most)
    for statement in rules.statements:
        await _settle(tx, statement, {*changed, *due}, now)
    return max(len(changed), len(due))


async def evaluate_everybody(
    database: Database, rulebook: Rulebook, segment_id: str, *, now: datetime, most: int
) -> None:
    """Ask the whole population the rule of one segment, and of those that refer to it, some at a time."""
    after, judge = UUID(int=0), None
    while True:
        async with database.transaction() as tx:
            await hold_evaluation(tx)
            rule_set = (await rulebook.current(tx)).rule_set
            judge = _find(rule_set.judges, segment_id)
            profiles = await MembershipStore(tx).next_profiles(after=after, most=most)
            if not profiles:
                await SegmentStore(tx).note_evaluated(segment_id, judge.rule_version)
                return
            for names in rule_set.groups(rule_set.affected_by({judge.name})):
                statement = asking(rule_set.needed_for(names), names, every_segment=False)
                await _settle(tx, statement, profiles, now)
        after = profiles[-1]


async def evaluate_if_new(database: Database, rulebook: Rulebook, segment_id: str, *, now: datetime, most: int) -> None:
    """Ask the whole population a rule that it has not been asked."""
    async with database.snapshot() as tx:
        evaluated = await SegmentStore(tx).is_evaluated(segment_id)
    if not evaluated:
        await evaluate_everybody(database, rulebook, segment_id, now=now, most=most)


async def finish_evaluations(database: Database, rulebook: Rulebook, *, now: datetime, most: int) -> None:
    """Evaluate the rules of requests that were stopped before the whole population was asked."""
    async with database.snapshot() as tx:
        unevaluated = await SegmentStore(tx).unevaluated(changed_before=now - GRACE)
    for written in unevaluated:
        await evaluate_everybody(database, rulebook, written.segment_id, now=now, most=most)


async def _settle(tx: Transaction, statement: Statement, ids: Collection[UUID], now: datetime) -> None:
    changes = await settle(tx, statement, ids, moment=now, now_us=to_us(now))
    for message in wire.memberships_changed(changes, now):
        tx.publish(message)


def _find(judges: Sequence[Judge], segment_id: str) -> Judge:
    for judge in judges:
        if judge.segment_id == segment_id:
            return judge
    raise NotFound(f"no segment {segment_id}")
