# SPDX-License-Identifier: Apache-2.0
"""All rules, understood once and read again only when one has changed."""

from dataclasses import dataclass
from functools import cached_property

from chassis.database import Transaction

from svc_segmentation.domain.rules import Watch, read_rule
from svc_segmentation.domain.segments import Judge, RuleSet, in_order
from svc_segmentation.store.judging import Statement, asking, foretelling
from svc_segmentation.store.segments import SegmentStore


@dataclass(frozen=True)
class Rules:
    """All rules at one revision, with what follows from them."""

    rule_set: RuleSet

    @cached_property
    def watch(self) -> Watch:
        """What may change any answer."""
        return self.rule_set.watch

    @cached_property
    def statements(self) -> list[Statement]:
        """The statements that ask every rule: one, until there are hundreds of rules."""
        groups = self.rule_set.groups(self.rule_set.judges)
        return [asking(self.rule_set.needed_for(names), names, every_segment=len(groups) == 1) for names in groups]

    @cached_property
    def foretelling(self) -> list[Statement]:
        """The statements that say what some profiles are in by every rule, without regard to their memberships."""
        groups = self.rule_set.groups(self.rule_set.judges)
        return [foretelling(self.rule_set.needed_for(names), names) for names in groups]


class Rulebook:
    """The rules as this process knows them."""

    def __init__(self) -> None:
        self._rules = Rules(RuleSet(0))

    async def current(self, tx: Transaction) -> Rules:
        """Return all rules as the transaction sees them."""
        segments = SegmentStore(tx)
        # The revision first: rules that are newer than it are only read once more.
        revision = await segments.revision()
        if revision != self._rules.rule_set.revision:
            judges = [
                Judge(written.segment_id, written.name, written.rule_version, read_rule(written.rule))
                for written in await segments.rules()
            ]
            self._rules = Rules(RuleSet(revision, in_order(judges)))
        return self._rules
