# SPDX-License-Identifier: Apache-2.0
"""Which traits a company defined as personal, so that every answer masks them too."""

from abc import abstractmethod
from collections.abc import Collection, Sequence

from dangol.profile.v1.traits_pb2 import PersonalTraitsChanged

from chassis.database import Database, Transaction
from chassis.masking import plain
from chassis.streams import Subscription
from chassis.watching import Watched


class PersonalTraits(Watched):
    """Their names as this process knows them."""

    what = "the names of personal traits"

    def __init__(self, database: Database) -> None:
        self._database = database
        self._names: Collection[str] = frozenset()

    def names(self) -> Collection[str]:
        """Return the names, spelt as the masking spells them."""
        return self._names

    async def refresh(self) -> None:
        """Read the names."""
        async with self._database.snapshot() as tx:
            self._names = frozenset(map(plain, await self.read(tx)))

    @abstractmethod
    async def read(self, tx: Transaction) -> Collection[str]:
        """Return the names as they were defined."""


class HeardPersonalTraits(PersonalTraits):
    """Their names as this service heard them."""

    async def read(self, tx: Transaction) -> Collection[str]:
        """Return what svc-profile said last."""
        names: list[str] = await tx.value("SELECT names FROM heard_personal_traits")
        return names


async def learn_names(tx: Transaction, messages: Sequence[PersonalTraitsChanged]) -> None:
    """Keep the names of the highest revision."""
    newest = max(messages, key=lambda message: message.revision)
    await tx.execute(
        "UPDATE heard_personal_traits SET names = :names, revision = :revision WHERE revision < :revision",
        names=list(newest.names),
        revision=newest.revision,
    )


SUBSCRIPTIONS = (Subscription(PersonalTraitsChanged, learn_names, name="personal-traits"),)
"""What every service with a database hears."""
