# SPDX-License-Identifier: Apache-2.0
"""Fragments that nobody is known by: they hold what an identifier owns and its own fragment cannot.

What is done on a shared device while a later user is around belongs to that user, from the user's first login there to
the next user's. What an identifier owned has to be derived anew under another fragment when it becomes known late that
some of it is another's, or may not be kept: other services cannot take back single events, but they can forget a
fragment and hear its events again under another one.
"""

from hashlib import blake2b

from svc_profile.domain.claims import DERIVED, Claim, Rule
from svc_profile.domain.events import FragmentKey, Name

Home = tuple[FragmentKey, FragmentKey]
"""The identifier that the events came under, and the fragment that they belong to: itself, or a later user."""


def derived_name(home: Home, generation: int) -> Name:
    """Name the fragment that holds what belongs to a home; each generation is a fragment of its own.

    The parts are keyed hashes already, so nobody without the key can guess the identifier from the result.
    """
    base, parent = home
    digest = blake2b(base + parent + generation.to_bytes(4), digest_size=16, person=b"dangol.derived").digest()
    return Name(digest, DERIVED, f"{base.hex()}:{parent.hex()}:{generation}")


def base_of(value: str) -> FragmentKey:
    """Read from the value of a derived name under which identifier its events came."""
    return bytes.fromhex(value.partition(":")[0])


def home_claim(name: Name, home: Home, parent_namespace: str) -> Claim:
    """Tie a derived fragment to where it belongs: from the beginning, whichever event is the first to need it."""
    base, parent = home
    return Claim(
        child=name.fragment,
        parent=parent,
        child_namespace=DERIVED,
        parent_namespace=parent_namespace,
        rule=Rule.CONTENT if base == parent else Rule.SHARED_DEVICE,
        time_us=0,
        event_key=bytes(16),
        rank=0,
        source="",
        message_id="",
    )
