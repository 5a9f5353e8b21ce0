# SPDX-License-Identifier: Apache-2.0
"""Keep the catalogue of purposes."""

import time
from collections.abc import Collection
from dataclasses import replace

from chassis.database import Database, Transaction
from chassis.errors import Conflict, NotFound

from svc_profile.domain.purposes import Purpose
from svc_profile.store.consents import ConsentStore
from svc_profile.store.purposes import PurposeStore
from svc_profile.wire.consent import purpose_saved

_FRESH_S = 1.0


class PurposeBook:
    """The purposes as one process knows them: never older than a second."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._purposes: list[Purpose] = []
        self._read_at = float("-inf")

    async def purposes(self) -> list[Purpose]:
        """Return all purposes by id."""
        if time.monotonic() - self._read_at > _FRESH_S:
            async with self._database.snapshot() as tx:
                self._purposes = await PurposeStore(tx).all()
            self._read_at = time.monotonic()
        return self._purposes


async def list_purposes(tx: Transaction) -> list[Purpose]:
    """Return all purposes by id."""
    return await PurposeStore(tx).all()


async def get_purpose(tx: Transaction, purpose_id: str) -> Purpose:
    """Return a purpose."""
    purpose = await PurposeStore(tx).find(purpose_id)
    if purpose is None:
        raise NotFound("there is no such purpose", metadata={"purpose_id": purpose_id})
    return purpose


async def create_purpose(tx: Transaction, purpose: Purpose) -> Purpose:
    """Add a purpose, and let every service know what holds for customers who said nothing about it."""
    purpose.check()
    store = PurposeStore(tx)
    await store.lock(purpose.purpose_id)
    if await store.find(purpose.purpose_id) is not None:
        raise Conflict("there is a purpose of this id already", metadata={"purpose_id": purpose.purpose_id})
    return await _save(tx, purpose)


async def update_purpose(tx: Transaction, purpose: Purpose, fields: Collection[str]) -> Purpose:
    """Change some fields of a purpose; what customers were shown stays what it was."""
    await PurposeStore(tx).lock(purpose.purpose_id)
    old = await get_purpose(tx, purpose.purpose_id)
    changed = replace(old, **{field: getattr(purpose, field) for field in fields})
    changed.check()
    changed.check_follows(old)
    if (changed.expiry_months, changed.minimum_age) != (old.expiry_months, old.minimum_age):
        await ConsentStore(tx).note_all_due(purpose.purpose_id)
    return await _save(tx, changed)


async def _save(tx: Transaction, purpose: Purpose) -> Purpose:
    revision = await PurposeStore(tx).put(purpose)
    tx.publish(purpose_saved(purpose, revision))
    return await get_purpose(tx, purpose.purpose_id)
