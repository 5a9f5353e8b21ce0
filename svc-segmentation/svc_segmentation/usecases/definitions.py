# SPDX-License-Identifier: Apache-2.0
"""Keep segments: create, change, delete, find."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

from chassis.database import Transaction
from chassis.errors import FailedPrecondition, Invalid
from chassis.ids import new_id

from chassis import consent
from svc_segmentation import wire
from svc_segmentation.domain.rules import MOST_OF_STATEMENT, Rule, read_rule
from svc_segmentation.domain.segments import Draft, Judge, Preview, RuleSet, Segment, find_circle, in_order
from svc_segmentation.domain.syntax import RuleError, explain
from svc_segmentation.store import judging
from svc_segmentation.store.locks import hold_evaluation, hold_rules
from svc_segmentation.store.segments import SegmentStore
from svc_segmentation.usecases.rulebook import Rulebook

RULE_FIELD = "segment.rule"


class Definitions:
    """The segments, and the rules about rules."""

    def __init__(self, rulebook: Rulebook, properties: Collection[str]) -> None:
        self._rulebook = rulebook
        self._properties = properties

    async def create(self, tx: Transaction, draft: Draft, *, request_id: str, now: datetime) -> Segment:
        """Keep a new segment, or find the one that the same request created before."""
        rule = self._checked(draft.rule or "", RULE_FIELD)
        rule_set = await self._held(tx)
        segments = SegmentStore(tx)
        earlier = await segments.find_request(request_id) if request_id else None
        if earlier is not None:
            return earlier
        segment = Segment(
            segment_id=new_id("seg"),
            name=draft.name or "",
            description=draft.description or "",
            rule=draft.rule or "",
            rule_version=1,
            created_time=now,
            updated_time=now,
        )
        _check_references(segment.name, rule, rule_set, RULE_FIELD)
        await segments.add(segment, request_id=request_id)
        tx.publish(wire.segment_saved(segment))
        return segment

    async def update(self, tx: Transaction, segment_id: str, draft: Draft, *, now: datetime) -> Segment:
        """Change a segment; a new rule has a new version."""
        rule = None if draft.rule is None else self._checked(draft.rule, RULE_FIELD)
        rule_set = await self._held(tx)
        segments = SegmentStore(tx)
        before = await segments.get(segment_id)
        after = replace(
            before,
            name=before.name if draft.name is None else draft.name,
            description=before.description if draft.description is None else draft.description,
            rule=before.rule if draft.rule is None else draft.rule,
        )
        if after == before:
            return before
        if after.name != before.name:
            _check_unused(before.name, rule_set, "renamed")
        if rule is not None and after.rule != before.rule:
            after = replace(after, rule_version=before.rule_version + 1)
            _check_references(before.name, rule, rule_set, RULE_FIELD)
        after = replace(after, updated_time=now)
        await segments.change(after)
        tx.publish(wire.segment_saved(after))
        return after

    async def delete(self, tx: Transaction, segment_id: str) -> None:
        """Forget a segment that no other rule refers to."""
        rule_set = await self._held(tx)
        segments = SegmentStore(tx)
        segment = await segments.get(segment_id)
        _check_unused(segment.name, rule_set, "deleted")
        await segments.remove(segment.segment_id)
        tx.publish(wire.segment_deleted(segment))

    async def preview(self, tx: Transaction, rule: str, *, sample_size: int, now_us: int) -> Preview:
        """Ask a rule of everybody, without keeping anything; who refuses to be analysed is counted, and not shown."""
        checked = self._checked(rule, "rule")
        rule_set = (await self._rulebook.current(tx)).rule_set
        _check_known(checked, rule_set, "rule")
        judges = (*rule_set.needed_for(checked.segments), Judge("", "", 0, checked))
        found = await judging.preview(tx, judges, sample_size=sample_size, now_us=now_us)
        silent = await consent.refused(tx, found.sample, consent.ANALYTICS)
        return replace(found, sample=[profile_id for profile_id in found.sample if profile_id not in silent])

    async def _held(self, tx: Transaction) -> RuleSet:
        """Keep everybody else from changing or applying rules, and return them."""
        await hold_evaluation(tx)
        await hold_rules(tx)
        return (await self._rulebook.current(tx)).rule_set

    def _checked(self, text: str, field: str) -> Rule:
        try:
            return read_rule(text, properties=self._properties)
        except RuleError as error:
            raise Invalid.field(field, explain(text, error), reason="RULE_INVALID") from error


async def get(tx: Transaction, segment_id: str) -> Segment:
    """Return a segment by id or name."""
    return await SegmentStore(tx).get(segment_id)


async def page(tx: Transaction, *, after: str, most: int) -> Sequence[Segment]:
    """Return segments by name."""
    return await SegmentStore(tx).page(after=after, most=most)


def _check_references(name: str, rule: Rule, rule_set: RuleSet, field: str) -> None:
    _check_known(rule, rule_set, field, but=name)
    references = {judge.name: judge.rule.segments for judge in rule_set.judges}
    circle = find_circle(name, {**references, name: rule.segments})
    if circle:
        raise Invalid.field(field, f"a segment cannot depend on itself: {' → '.join(circle)}", reason="SEGMENT_CIRCLE")
    _check_size(name, rule, rule_set, field)


def _check_size(name: str, rule: Rule, rule_set: RuleSet, field: str) -> None:
    """Refuse a rule with which some segment, together with all that it refers to, would not fit into a statement."""
    others = [judge for judge in rule_set.judges if judge.name != name]
    after = RuleSet(0, in_order([*others, Judge("", name, 0, rule)]))
    for judge in after.affected_by({name}):
        if not after.size_of({judge.name}).fits(MOST_OF_STATEMENT):
            raise Invalid.field(
                field, f"{judge.name}, with all segments that it refers to, asks too much", reason="RULE_TOO_LARGE"
            )


def _check_known(rule: Rule, rule_set: RuleSet, field: str, *, but: str = "") -> None:
    unknown = rule.segments - {judge.name for judge in rule_set.judges} - {but}
    if unknown:
        raise Invalid.field(field, f"there is no segment named {sorted(unknown)[0]!r}", reason="SEGMENT_UNKNOWN")


def _check_unused(name: str, rule_set: RuleSet, what: str) -> None:
    users = rule_set.users_of(name)
    if users:
        raise FailedPrecondition(
            f"{name} cannot be {what}: the rule of {', '.join(users)} refers to it",
            reason="SEGMENT_IN_USE",
            metadata={"segments": ",".join(users)},
        )
