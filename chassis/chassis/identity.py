# SPDX-License-Identifier: Apache-2.0
"""Names of customers: identifiers, fragment ids, profile references.

A fragment's id is a keyed hash of namespace and normalised value (BLAKE2b, 16 bytes, RFC 7693), so that every service
and every replay finds the same one and nobody can guess the value back without the key. A profile is named by the id
of its earliest fragment, written `prf_` and 26 characters of Crockford's base 32.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import NewType
from uuid import UUID

import phonenumbers

from chassis.errors import Invalid

FragmentId = NewType("FragmentId", UUID)
"""Id of what was learnt under one identifier alone."""

ProfileId = NewType("ProfileId", UUID)
"""Id of a customer: the id of the customer's earliest fragment."""

NAMESPACES = ("user_id", "email", "phone", "anonymous_id")
"""Built-in kinds of identifier, strongest first."""

PREFIX = "prf_"
MAX_VALUE_LENGTH = 512
DEFAULT_REGION = "KR"

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
_KOREAN_MOBILE = re.compile(r"01[016789]-?\d{3,4}-?\d{4}")


@dataclass(frozen=True, order=True)
class Identifier:
    """One name of a customer, normalised."""

    namespace: str
    value: str


class IdentityKey:
    """The secret with which fragment ids are made; the same in every service."""

    def __init__(self, key: bytes) -> None:
        if len(key) < 16:
            raise Invalid.field("DANGOL_IDENTITY_KEY", "must be at least 16 bytes (32 hexadecimal digits)")
        self._key = key[:64]

    def fragment_id(self, identifier: Identifier) -> FragmentId:
        """Hash namespace and value; equal identifiers give equal ids in every service and every replay."""
        text = f"{identifier.namespace}\x00{identifier.value}".encode()
        return FragmentId(UUID(bytes=blake2b(text, digest_size=16, key=self._key).digest()))

    def resolve(self, reference: str) -> FragmentId:
        """Turn a profile reference (`prf_…` or `<namespace>:<value>`) into the fragment that it names.

        Raises `Invalid` when the text is no reference. Whether anybody is behind it is for the caller to find out.
        """
        if reference.startswith(PREFIX):
            return FragmentId(parse_profile_id(reference))
        namespace, colon, value = reference.partition(":")
        if not colon or not re.fullmatch(r"[a-z][a-z0-9_]*", namespace):
            raise Invalid.field("profile", "must be prf_… or <namespace>:<value>, such as user_id:u1")
        normal = normalise(namespace, value)
        if normal is None:
            raise Invalid.field("profile", f"the value is not a usable {namespace}")
        return self.fragment_id(Identifier(namespace, normal))


def format_profile_id(profile_id: UUID) -> str:
    """Write a profile id for people: `prf_` and 26 characters."""
    number = profile_id.int
    return PREFIX + "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))


def parse_profile_id(text: str) -> ProfileId:
    """Read what `format_profile_id` wrote; raises `Invalid`."""
    body = text.removeprefix(PREFIX).upper()
    if not text.startswith(PREFIX) or len(body) != 26 or any(c not in _VALUES for c in body):
        raise Invalid.field("profile", "a profile id is prf_ and 26 characters of 0-9 and A-Z without I, L, O, U")
    number = 0
    for character in body:
        number = number << 5 | _VALUES[character]
    if number >> 128:
        raise Invalid.field("profile", "no such profile id")
    return ProfileId(UUID(int=number))


@lru_cache(maxsize=65536)
def normalise(namespace: str, value: str) -> str | None:
    """Bring an identifier's value into its one spelling; None when nobody can be known by it.

    Every value is NFC without surrounding space and at most 512 characters; `email` is in lower case, `phone` is E.164
    with Korea as the default country. Junk ids that many clients send for "nobody" are refused.
    """
    text = unicodedata.normalize("NFC", value).strip()
    if not text or len(text) > MAX_VALUE_LENGTH or "\x00" in text or is_junk(text):
        return None
    if namespace == "email":
        return _email(text)
    if namespace == "phone":
        return _phone(text)
    return text


JUNK_IDS = frozenset(
    {
        "anonymous", "guest", "distinct_id", "distinctid", "id", "not_authenticated", "email", "undefined", "null",
        "none", "nil", "true", "false", "nan", "0", "-1", "[object object]", "{}", "[]", "unknown", "n/a",
        "00000000-0000-0000-0000-000000000000",
    }
)  # fmt: skip
"""What clients send when they mean nobody, in lower case, without quotes (PostHog's list, and more)."""


def is_junk(value: str) -> bool:
    """Tell whether a value is one of the junk ids, also when quoted."""
    return value.strip("\"'` ").casefold() in JUNK_IDS or not value.strip("\"'` ")


def _email(text: str) -> str | None:
    local, at, domain = text.casefold().rpartition("@")
    if not at or not local or not domain or any(c.isspace() for c in text):
        return None
    return f"{local}@{domain}"


def _phone(text: str) -> str | None:
    # Nearly all numbers of the home market take this way; the library costs 50 times as much.
    if _KOREAN_MOBILE.fullmatch(text):
        return "+82" + text.replace("-", "")[1:]
    try:
        number = phonenumbers.parse(text, DEFAULT_REGION)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
