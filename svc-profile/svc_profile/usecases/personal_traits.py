# SPDX-License-Identifier: Apache-2.0
"""Know which traits somebody defined as personal, so that every answer masks them."""

from collections.abc import Collection

from chassis.database import Database
from chassis.masking import plain

from svc_profile.store.trait_schema import TraitSchemaStore
from svc_profile.usecases.watching import Watched


class PersonalTraits(Watched):
    """The names of personal traits as this process knows them."""

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
            schema = await TraitSchemaStore(tx).current()
        self._names = frozenset(map(plain, schema.personal))
