# SPDX-License-Identifier: Apache-2.0
"""The definitions of traits: one document in one row, so that whoever reads or locks it sees all of one revision."""

from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from uuid import UUID

import msgspec
from chassis.database import Transaction

from svc_profile.domain.computed import ComputedTrait
from svc_profile.domain.definitions import NO_SCHEMA, TraitDefinition, TraitSchema
from svc_profile.domain.fragments import storable
from svc_profile.store.plans import BY_INDEX

_LOCK = "8, 9"
"""The advisory lock at which folds and changes of the definitions queue up."""

_READ = "SELECT CAST(document AS text) FROM trait_schema"

# Consumers hold the row shared while they fold, whoever changes it has it alone: each batch is folded under one
# revision, and none that began before a change is still in hand after it. Shared locks of a row overtake whoever waits
# to change it, those of the lock manager queue up behind, so that is where both wait first. The row lock reads what was
# changed meanwhile. With the same statement PostgreSQL learns how to go about the others.
_HOLD = f"""
SELECT CAST(document AS text), {BY_INDEX}
FROM (SELECT pg_advisory_xact_lock_shared({_LOCK}) OFFSET 0) AS queue CROSS JOIN trait_schema
FOR SHARE OF trait_schema
"""  # noqa: S608  no data in it
_QUEUE_ALONE = f"SELECT pg_advisory_xact_lock({_LOCK})"

_PROGRESS = "SELECT * FROM trait_derivation"
_TAKE_PROGRESS = "SELECT * FROM trait_derivation FOR UPDATE"

_BEGIN_DERIVATION = """
UPDATE trait_derivation SET running = true, cursor = NULL, done_count = 0, total_count = 0, started_time = now(),
    finished_time = NULL
"""


class _Document(msgspec.Struct):
    revision: int = 0
    definitions: list[TraitDefinition] = []
    computed: list[ComputedTrait] = []


_decode = msgspec.json.Decoder(_Document).decode


@lru_cache(maxsize=8)
def parse_schema(text: str) -> TraitSchema:
    """Read a document once for as long as it stays the same."""
    document = _decode(text)
    if not document.revision:
        return NO_SCHEMA
    definitions = {definition.name: definition for definition in document.definitions}
    return TraitSchema(document.revision, definitions, tuple(document.computed))


class TraitSchemaStore:
    """Keeps what somebody decided about traits."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def current(self) -> TraitSchema:
        """Return the definitions as they are now."""
        return parse_schema(await self._tx.value(_READ))

    async def hold(self) -> TraitSchema:
        """Return the definitions, keep them as they are until the end of the transaction, and look up by index."""
        return parse_schema(await self._tx.value(_HOLD))

    async def take(self) -> TraitSchema:
        """Return the definitions to change them, when nobody else folds by them or changes them."""
        await self._tx.value(_QUEUE_ALONE)
        return parse_schema(await self._tx.value(f"{_READ} FOR UPDATE"))

    async def put(self, schema: TraitSchema) -> TraitSchema:
        """Keep changed definitions under a new revision."""
        saved = replace(schema, revision=schema.revision + 1)
        document = _Document(saved.revision, list(saved.definitions.values()), list(saved.computed))
        await self._tx.execute(
            "UPDATE trait_schema SET document = CAST(:document AS jsonb)",
            document=msgspec.json.encode(storable(msgspec.to_builtins(document))).decode(),
        )
        return saved

    async def next_announcement(self) -> int:
        """Return a number that is greater than all that were returned before."""
        return int(await self._tx.value("SELECT nextval('trait_announcements')"))


@dataclass(frozen=True)
class Progress:
    """How far traits have been derived again."""

    running: bool
    cursor: bytes | None
    """The last fragment that was done."""
    done: int
    total: int
    started_time: datetime | None
    finished_time: datetime | None


class DerivationStore:
    """Keeps how far traits have been derived again, so that whoever goes on after a crash knows where."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def begin(self) -> None:
        """Have all fragments derived, from the first one on."""
        await self._tx.execute(_BEGIN_DERIVATION)

    async def progress(self, *, lock: bool = False) -> Progress:
        """Return how far it is; with `lock`, nobody else goes on until the end of the transaction."""
        row = await self._tx.row(_TAKE_PROGRESS if lock else _PROGRESS)
        if row is None:
            raise LookupError("trait_derivation has no row")
        return Progress(
            running=row.running,
            cursor=row.cursor.bytes if row.cursor else None,
            done=row.done_count,
            total=row.total_count,
            started_time=row.started_time,
            finished_time=row.finished_time,
        )

    async def count(self) -> None:
        """Count what there is to do."""
        await self._tx.execute("UPDATE trait_derivation SET total_count = (SELECT count(*) FROM fragments)")

    async def advance(self, cursor: bytes, done: int) -> None:
        """Note that some more fragments are done."""
        await self._tx.execute(
            "UPDATE trait_derivation SET cursor = :cursor, done_count = done_count + :done",
            cursor=UUID(bytes=cursor),
            done=done,
        )

    async def finish(self) -> None:
        """Note that all are done."""
        await self._tx.execute("UPDATE trait_derivation SET running = false, finished_time = now()")
