# SPDX-License-Identifier: Apache-2.0
"""Keep the rules of retention, and let every service know them."""

from collections.abc import Collection
from dataclasses import replace

from chassis.database import Transaction
from chassis.errors import Conflict, Invalid, NotFound

from svc_profile.domain.retention import Rule
from svc_profile.store.purposes import PurposeStore
from svc_profile.store.retention import RetentionRuleStore
from svc_profile.wire.retention import rules_changed


async def list_rules(tx: Transaction) -> list[Rule]:
    """Return all rules."""
    return await RetentionRuleStore(tx).all()


async def get_rule(tx: Transaction, rule_id: str) -> Rule:
    """Return one rule."""
    rule = await RetentionRuleStore(tx).find(rule_id)
    if rule is None:
        raise NotFound("there is no such retention rule", metadata={"rule_id": rule_id})
    return rule


async def create_rule(tx: Transaction, rule: Rule) -> Rule:
    """Add a rule."""
    await RetentionRuleStore(tx).lock()
    return await _save(tx, rule)


async def update_rule(tx: Transaction, given: Rule, fields: Collection[str], now_us: int) -> Rule:
    """Change some fields of a rule."""
    await RetentionRuleStore(tx).lock()
    old = await get_rule(tx, given.rule_id)
    return await _save(tx, replace(old, updated_us=now_us, **{field: getattr(given, field) for field in fields}))


async def delete_rule(tx: Transaction, rule_id: str) -> None:
    """Remove a rule."""
    store = RetentionRuleStore(tx)
    await store.lock()
    if not await store.delete(rule_id):
        raise NotFound("there is no such retention rule", metadata={"rule_id": rule_id})
    await announce_rules(tx)


async def announce_rules(tx: Transaction) -> None:
    """Let every service know all rules; once more does no harm, and reaches services that are new."""
    store = RetentionRuleStore(tx)
    tx.publish(rules_changed(await store.all(), await store.next_revision()))


async def announce_again(tx: Transaction) -> None:
    """Announce the rules as they are, without another change in between."""
    await RetentionRuleStore(tx).lock()
    if await list_rules(tx):
        await announce_rules(tx)


async def _save(tx: Transaction, rule: Rule) -> Rule:
    rule.check()
    store = RetentionRuleStore(tx)
    if rule.purpose_id and await PurposeStore(tx).find(rule.purpose_id) is None:
        raise Invalid.field("retention_rule.purpose_id", "must be a purpose of the catalogue")
    same = await store.find_same(rule)
    if same is not None:
        raise Conflict("there is a rule for the same event, purpose and action", metadata={"rule_id": same.rule_id})
    await store.put(rule)
    await announce_rules(tx)
    return rule
