# SPDX-License-Identifier: Apache-2.0
"""Fold events into fragments, and find out who is who."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from chassis.database import Transaction

from svc_profile.domain.claims import claims_of
from svc_profile.domain.definitions import TraitSchema
from svc_profile.domain.events import FragmentKey, Namer
from svc_profile.domain.fragments import Fragment, learn
from svc_profile.store.folding import Folded, FoldStore
from svc_profile.store.links import LinkStore
from svc_profile.store.rejected import RejectedStore
from svc_profile.usecases.announcing import announce_stated
from svc_profile.usecases.diverting import Diversion
from svc_profile.usecases.groups import learn_groups_of
from svc_profile.usecases.relinking import relink
from svc_profile.wire.anonymous import anonymous_batches

REPLAYED = "events.resolved.0"
"""Subject of events that are told apart from the message that brought them."""


@dataclass(frozen=True)
class Learner:
    """What learning from events needs to know."""

    namer: Namer
    schema: TraitSchema
    """What was decided about traits at this moment."""
    anonymous_properties: Collection[str] | None = None
    """Properties that are kept when somebody who refuses is counted without a person; None when nobody is."""

    async def fold(self, tx: Transaction, diversion: Diversion, flags: Mapping[FragmentKey, int]) -> Folded:
        """Add what events teach to their fragments; raises `FlaggedError` when they were prepared for other flags."""
        return await self._fold(tx, diversion, self._learn(diversion), flags)

    async def fold_again(self, tx: Transaction, diversion: Diversion, flags: Mapping[FragmentKey, int]) -> Folded:
        """Add what events teach that were folded before, and now belong to others, of whom the caller has the locks.

        Whose names they came with has been learnt; to lock those now, after the identity lock, could end in a circle.
        """
        learnt = {key: each for key, each in self._learn(diversion).items() if each.first_event_us is not None}
        return await self._fold(tx, diversion, learnt, flags)

    def _learn(self, diversion: Diversion) -> dict[FragmentKey, Fragment]:
        accepted, _ = self.schema.judge(diversion.events)
        return learn(accepted, self.schema.policies)

    async def _fold(
        self,
        tx: Transaction,
        diversion: Diversion,
        learnt: Mapping[FragmentKey, Fragment],
        flags: Mapping[FragmentKey, int],
    ) -> Folded:
        folded = await FoldStore(tx, self.schema.policies).fold(learnt, flags)
        await announce_stated(tx, diversion.learnt, self.schema)
        await learn_groups_of(tx, diversion.learnt)
        return folded

    async def record(self, tx: Transaction, diversion: Diversion) -> None:
        """Keep a record of the traits that broke their definitions."""
        _, broken = self.schema.judge(diversion.learnt)
        await RejectedStore(tx).put(broken)

    def count(self, tx: Transaction, diversion: Diversion) -> None:
        """Let other services count events of customers who refuse to be analysed, without a person."""
        if self.anonymous_properties is None or not diversion.counted:
            return
        payloads = [event.payload for event in diversion.events if event.key in diversion.counted]
        for batch in anonymous_batches(payloads, self.anonymous_properties):
            tx.publish(batch, REPLAYED)

    async def link(self, tx: Transaction, diversion: Diversion, folded: Folded) -> set[FragmentKey]:
        """Find out who is who now; returns the devices of which somebody else may be a user since."""
        links = LinkStore(tx)
        claims = claims_of(diversion.events)
        tied = {pair: claim for pair, claim in diversion.claims.items() if pair[0] in folded.new}
        news = await links.news(claims, folded.new) | tied
        # Without a link, nobody else's identity hangs on how old a fragment is.
        older = await links.linked(folded.earlier)
        if news or older:
            await relink(tx, self.namer.types, news, older, folded.new)
        # A device that is new and came with only one user, as nearly all do, is shared with nobody.
        links_of = Counter(child for child, _ in news)
        return {
            claim.child
            for claim in news.values()
            if claim.is_login and (claim.child not in folded.new or links_of[claim.child] > 1)
        }
