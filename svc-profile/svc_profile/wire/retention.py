# SPDX-License-Identifier: Apache-2.0
"""Between protobuf and rules of retention."""

from collections.abc import Sequence

from chassis.clock import timestamp_from_us
from chassis.errors import Invalid
from dangol.profile.v1 import retention_pb2 as pb

from svc_profile.domain.retention import Rule

CHANGEABLE = ("event", "purpose_id", "days", "action")
"""Fields that an update can change."""


def rule_from_proto(message: pb.RetentionRule, rule_id: str, now_us: int) -> Rule:
    """Read a rule."""
    return Rule(rule_id, message.event, message.purpose_id, message.days, message.action, now_us)


def rule_to_proto(rule: Rule) -> pb.RetentionRule:
    """Write a rule."""
    return pb.RetentionRule(
        rule_id=rule.rule_id,
        event=rule.event,
        purpose_id=rule.purpose_id,
        days=rule.days,
        action=pb.RetentionAction.ValueType(rule.action),
        updated_time=timestamp_from_us(rule.updated_us),
    )


def update_of(request: pb.UpdateRetentionRuleRequest) -> list[str]:
    """Return what an update asks for: the fields of its mask, or every one that is set."""
    paths = set(request.update_mask.paths)
    unknown = sorted(paths - {*CHANGEABLE, "rule_id"})
    if unknown:
        raise Invalid.field("update_mask", f"{unknown[0]} cannot be changed; these can: {', '.join(CHANGEABLE)}")
    given = {field.name for field, _ in request.retention_rule.ListFields()}
    return [field for field in CHANGEABLE if field in (paths or given)]


def rules_changed(rules: Sequence[Rule], revision: int) -> pb.RetentionRulesChanged:
    """Say which rules there are."""
    return pb.RetentionRulesChanged(retention_rules=[rule_to_proto(rule) for rule in rules], revision=revision)
