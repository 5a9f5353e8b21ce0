# SPDX-License-Identifier: Apache-2.0
"""Names of customers: identifiers, fragment ids, profile references.

A fragment's id is a keyed hash of namespace and normalised value (BLAKE2b, 16 bytes, RFC 7693), so that every service
and every replay finds the same one and nobody can guess the value back without the key. A profile is named by the id
of its earliest fragment, written `prf_` and 26 characters of Crockford's base 32.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import NewType
from uuid import UUID

from chassis.errors import Invalid
from chassis.identifiers import BUILT_IN, IdentifierTypes

FragmentId = NewType("FragmentId", UUID)
"""Id of what was learnt under one identifier alone."""

ProfileId = NewType("ProfileId", UUID)
"""Id of a customer: the id of the customer's earliest fragment."""

PREFIX = "prf_"

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}


@dataclass(frozen=True, order=True)
class Identifier:
    """One name of a customer, normalised."""

    namespace: str
    value: str


class IdentityKey:
    """The secret with which fragment ids are made, and the types of identifier; the same in every service."""

    def __init__(self, key: bytes, types: IdentifierTypes = BUILT_IN) -> None:
        if len(key) < 16:
            raise Invalid.field("DANGOL_IDENTITY_KEY", "must be at least 16 bytes (32 hexadecimal digits)")
        # The key is hashed once; every identifier goes on from a copy.
        self._keyed = blake2b(digest_size=16, key=key[:64])
        self.types = types

    def fragment_id(self, identifier: Identifier) -> FragmentId:
        """Hash namespace and value; equal identifiers give equal ids in every service and every replay."""
        return FragmentId(UUID(bytes=self.fragment_key(identifier.namespace, identifier.value)))

    def fragment_key(self, namespace: str, value: str) -> bytes:
        """Return the 16 bytes of a fragment's id."""
        keyed = self._keyed.copy()
        keyed.update(f"{namespace}\x00{value}".encode())
        return keyed.digest()

    def resolve(self, reference: str, field: str = "profile") -> FragmentId:
        """Turn a profile reference (`prf_…` or `<namespace>:<value>`) into the fragment that it names.

        Raises `Invalid` of the field that holds it when the text is no reference. Whether anybody is behind it is for
        the caller to find out.
        """
        if reference.startswith(PREFIX):
            return FragmentId(parse_profile_id(reference, field))
        namespace, colon, value = reference.partition(":")
        if not colon or namespace not in self.types:
            known = ", ".join(self.types.rank)
            raise Invalid.field(field, f"must be prf_… or <namespace>:<value>; the namespaces are {known}")
        normal = self.types.normalise(namespace, value)
        if normal is None:
            raise Invalid.field(field, f"the value is not a usable {namespace}")
        return self.fragment_id(Identifier(namespace, normal))


def format_profile_id(profile_id: UUID) -> str:
    """Write a profile id for people: `prf_` and 26 characters."""
    number = profile_id.int
    return PREFIX + "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))


def parse_profile_id(text: str, field: str = "profile") -> ProfileId:
    """Read what `format_profile_id` wrote; raises `Invalid`."""
    body = text.removeprefix(PREFIX).upper()
    if not text.startswith(PREFIX) or len(body) != 26 or any(c not in _VALUES for c in body):
        raise Invalid.field(field, "a profile id is prf_ and 26 characters of 0-9 and A-Z without I, L, O, U")
    number = 0
    for character in body:
        number = number << 5 | _VALUES[character]
    if number >> 128:
        raise Invalid.field(field, "no such profile id")
    return ProfileId(UUID(int=number))
