# SPDX-License-Identifier: Apache-2.0
"""What svc-recommend hears."""

from collections.abc import Mapping, Sequence

from chassis.database import Transaction
from chassis.streams import RESOLVED, Subscription
from dangol.events.v1.events_pb2 import EventBatch
from dangol.profile.v1.consent_pb2 import ConsentsChanged
from dangol.profile.v1.identity_pb2 import FragmentsRemapped

from svc_recommend import wire
from svc_recommend.domain.customers import FragmentKey, Placement
from svc_recommend.domain.interactions import EventWeight, Learner
from svc_recommend.usecases import learning

_MOST_HEARD = 200_000


class Learning:
    """The consumer of resolved events."""

    def __init__(self, weights: Mapping[str, EventWeight]) -> None:
        self._weights = weights
        self._heard: dict[FragmentKey, int] = {}

    async def on_resolved(self, tx: Transaction, batches: Sequence[EventBatch]) -> None:
        """Learn from a micro-batch."""
        learner = Learner(self._weights)
        placements = self._news(wire.read_events(batches, learner))
        await learning.learn(tx, learner.learnt, placements)

    def _news(self, placements: Mapping[FragmentKey, Placement]) -> dict[FragmentKey, Placement]:
        """Leave out what events said before.

        If the transaction that heard it first came to nothing, `FragmentsRemapped` says it again.
        """
        heard = self._heard
        news = {key: each for key, each in placements.items() if heard.get(key, -1) < each.revision}
        if len(heard) + len(news) > _MOST_HEARD:
            heard.clear()
        heard.update((key, each.revision) for key, each in news.items())
        return news


async def on_fragments_remapped(tx: Transaction, messages: Sequence[FragmentsRemapped]) -> None:
    """Keep who is who."""
    await learning.place(tx, wire.read_mappings(messages))


async def on_consents_changed(tx: Transaction, messages: Sequence[ConsentsChanged]) -> None:
    """Learn from histories anew, or no longer."""
    await learning.heed_consents(tx, messages)


def subscriptions(weights: Mapping[str, EventWeight], batch_messages: int) -> tuple[Subscription, ...]:
    """Return what the service hears."""
    return (
        Subscription(EventBatch, Learning(weights).on_resolved, subject=RESOLVED, batch_messages=batch_messages),
        Subscription(FragmentsRemapped, on_fragments_remapped),
        Subscription(ConsentsChanged, on_consents_changed),
    )
