# SPDX-License-Identifier: Apache-2.0
"""A customer, and the definitions by which its fragments are put together, in one round trip."""

from collections.abc import Sequence
from dataclasses import dataclass

from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction

from svc_profile.domain.definitions import TraitSchema
from svc_profile.domain.events import FragmentKey
from svc_profile.domain.fragments import Fragment
from svc_profile.store.fragments import PROFILE, read_fragment
from svc_profile.store.sealed import revealed_fragments
from svc_profile.store.trait_schema import parse_schema

_WHOLE = PROFILE.format(further=", (SELECT CAST(document AS text) FROM trait_schema) AS schema")


@dataclass(frozen=True)
class Whole:
    """All that a customer's identifiers have taught."""

    profile: FragmentKey
    fragments: Sequence[Fragment]
    """At least one."""
    schema: TraitSchema


async def find_whole(tx: Transaction, fragment: FragmentKey) -> Whole | None:
    """Return the customer whom a fragment belongs to, None when nobody was ever known by it."""
    rows = await tx.rows(_WHOLE, fragment=UUID(fragment))
    if not rows:
        return None
    return Whole(
        rows[0].profile_id.bytes,
        [read_fragment(row) for row in await revealed_fragments(tx, rows)],
        parse_schema(rows[0].schema),
    )
