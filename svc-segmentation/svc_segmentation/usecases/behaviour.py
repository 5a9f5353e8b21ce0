# SPDX-License-Identifier: Apache-2.0
"""Remember what customers do, and whom it may bring into a segment or out of one."""

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from chassis.database import Transaction
from chassis.mapping import Remapped

from chassis import mapping
from svc_segmentation.domain.behaviour import Behaviour, Decided
from svc_segmentation.domain.rules import Watch
from svc_segmentation.store import behaviour as store
from svc_segmentation.store.locks import share_rules
from svc_segmentation.usecases.rulebook import Rulebook

_KNOWN_MAPPINGS = 100_000


class Memory:
    """Keeps behaviour; one for each process, because it remembers which fragments need no look-up."""

    def __init__(self, rulebook: Rulebook) -> None:
        self._rulebook = rulebook
        self._revisions: dict[bytes, int] = {}
        """Revision that each fragment's mapping has at least, as read from committed rows."""

    async def remember(self, tx: Transaction, behaviour: Behaviour) -> None:
        """Add a batch of events, and have evaluated whom it may matter for."""
        await share_rules(tx)
        moved = await self._learn(tx, behaviour.mappings)
        await store.add_days(tx, behaviour.days)
        await store.state_traits(tx, behaviour.traits)
        rules = await self._rulebook.current(tx)
        if rules.rule_set.judges:
            await store.mark_changed(tx, _touched(behaviour, rules.watch) | _moved(moved))

    async def decide(self, tx: Transaction, decided: Mapping[bytes, Decided]) -> None:
        """Take over what svc-profile decided about traits, and have evaluated whom it may matter for."""
        await share_rules(tx)
        await store.decide_traits(tx, decided)
        rules = await self._rulebook.current(tx)
        if rules.rule_set.judges and rules.watch.traits:
            # Also fragments about which nothing is decided any more: what they stated counts again.
            await store.mark_changed(tx, decided.keys())

    async def _learn(self, tx: Transaction, mappings: Mapping[bytes, tuple[int, bytes]]) -> Sequence[Remapped]:
        news = {f: m for f, m in mappings.items() if self._revisions.get(f, -1) < m[0]}
        if not news:
            return []
        if len(self._revisions) > _KNOWN_MAPPINGS:
            self._revisions.clear()
        self._revisions.update(await store.mapping_revisions(tx, news))
        unknown = {f: m for f, m in news.items() if self._revisions.get(f, -1) < m[0]}
        return await mapping.learn(
            tx,
            [UUID(bytes=fragment) for fragment in unknown],
            [UUID(bytes=profile) for _, profile in unknown.values()],
            [revision for revision, _ in unknown.values()],
        )


async def remap(tx: Transaction, fragments: Sequence[UUID], profiles: Sequence[UUID], revisions: Sequence[int]) -> None:
    """Learn where fragments belong, and have everybody evaluated who gained or lost one."""
    moved = await mapping.learn(tx, fragments, profiles, revisions)
    await store.mark_changed(tx, _moved(moved))


def _touched(behaviour: Behaviour, watch: Watch) -> set[bytes]:
    """Return the fragments of which some rule asks what has happened."""
    touched = {key[0] for key in behaviour.days if watch.every_event or key[1] in watch.event_keys}
    stated = {fragment for fragment, traits in behaviour.traits.items() if not watch.traits.isdisjoint(traits)}
    return touched | stated


def _moved(moved: Collection[Remapped]) -> set[bytes]:
    fragments = {each.fragment_id.bytes for each in moved}
    return fragments | {each.old_profile_id.bytes for each in moved if each.old_profile_id is not None}
