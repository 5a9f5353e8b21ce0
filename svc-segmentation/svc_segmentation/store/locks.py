# SPDX-License-Identifier: Apache-2.0
"""Who waits for whom; PostgreSQL lets go of every lock at the end of its transaction, however that comes.

Evaluation: one transaction at a time decides about memberships, so that no decision on old facts overtakes one on new
facts. Rules: consumers hold them shared while they decide whether an event matters; whoever changes a rule holds them
alone, so that an event is either seen by the evaluation of the whole population or was matched against the new rule.
Evaluation is always locked before rules.
"""

from chassis.database import Transaction

# Everything in these transactions is looked up by key, so one plan is right for every batch, and making it again each
# time would cost more than running it. A plan that was made while a table was still empty must not read it from end to
# end once it has grown, until PostgreSQL happens to analyse it.
_BY_KEY = "set_config('enable_seqscan', 'off', true), set_config('plan_cache_mode', 'force_generic_plan', true)"

_SPACE = 8
_EVALUATION = 1
_RULES = 2


async def hold_evaluation(tx: Transaction) -> None:
    """Wait until nobody else evaluates."""
    await tx.value(f"SELECT pg_advisory_xact_lock(:space, :lock), {_BY_KEY}", space=_SPACE, lock=_EVALUATION)


async def hold_rules(tx: Transaction) -> None:
    """Wait until no consumer is matching events against rules, and keep new ones waiting."""
    await tx.value("SELECT pg_advisory_xact_lock(:space, :lock)", space=_SPACE, lock=_RULES)


async def share_rules(tx: Transaction) -> None:
    """Keep rules from changing until the end of the transaction."""
    await tx.value(f"SELECT pg_advisory_xact_lock_shared(:space, :lock), {_BY_KEY}", space=_SPACE, lock=_RULES)
