# SPDX-License-Identifier: Apache-2.0
"""Customers whom a request is about: held still while it begins."""

from collections.abc import Sequence

from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction

from svc_profile.domain.events import FragmentKey, Name
from svc_profile.domain.flags import SHARED
from svc_profile.store.links import LinkStore
from svc_profile.store.members import find_members
from svc_profile.store.sealed import revealed

# In key order, as a fold takes them; the identity lock comes after them, as in a fold.
_HOLD = """
SELECT fragment_id FROM fragments WHERE fragment_id = ANY (CAST(:fragments AS uuid[])) ORDER BY fragment_id FOR UPDATE
"""

# An identifier is others' too when several people log in on it, or when somebody else claims it.
_NAMES = """
SELECT fragment_id, namespace, value, flags & :shared <> 0 OR EXISTS (
    SELECT FROM links l WHERE l.child = f.fragment_id AND l.parent <> ALL (CAST(:fragments AS uuid[]))
) AS shared
FROM fragments f WHERE fragment_id = ANY (CAST(:fragments AS uuid[])) ORDER BY fragment_id
"""


async def hold_fragments(tx: Transaction, fragments: Sequence[FragmentKey]) -> None:
    """Keep everybody else from learning about fragments, and from linking any, until the end of the transaction."""
    await tx.rows(_HOLD, fragments=[UUID(each) for each in sorted(fragments)])
    await LinkStore(tx).lock()


async def hold_customer(tx: Transaction, fragment: FragmentKey) -> list[FragmentKey]:
    """Hold a customer still and return all fragments; none when nobody is known."""
    members = await find_members(tx, fragment)
    if members is None:
        return []
    await hold_fragments(tx, members.fragments)
    # Whoever joined before the locks were held is seen now, and nobody joins any more.
    members = await find_members(tx, fragment)
    return members.fragments if members else []


async def names_of(tx: Transaction, fragments: Sequence[FragmentKey]) -> dict[Name, bool]:
    """Return the identifiers of a customer, each with whether it is somebody else's too."""
    rows = await tx.rows(_NAMES, fragments=[UUID(each) for each in fragments], shared=SHARED)
    rows = await revealed(tx, rows, {"value": "fragment_id"})
    return {Name(row.fragment_id.bytes, row.namespace, row.value): row.shared for row in rows}


async def flag(tx: Transaction, fragments: Sequence[FragmentKey], flag_: int) -> None:
    """Set a flag on fragments that are held."""
    await tx.execute(
        "UPDATE fragments SET flags = flags | :flag WHERE fragment_id = ANY (CAST(:fragments AS uuid[]))",
        flag=flag_,
        fragments=[UUID(each) for each in fragments],
    )
