# SPDX-License-Identifier: Apache-2.0
"""Types of identifier: by which names people are known, how a value is spelt, and what binds a person.

`DANGOL_IDENTIFIERS` is a JSON list of types, strongest first, and must be the same in every service, because a
reference such as `email:Kim@Example.com` is spelt by whoever is asked.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

import idna
import phonenumbers
from pydantic import BaseModel, ConfigDict, Field

from chassis.errors import Invalid

USER_ID, EMAIL, PHONE, ANONYMOUS_ID = "user_id", "email", "phone", "anonymous_id"

MAX_VALUE_LENGTH = 512
DEFAULT_REGION = "KR"

Spelling = Literal["text", "lower", "email", "phone"]

_NOT_FROM_TRAITS = frozenset({USER_ID, ANONYMOUS_ID})
# What surrounds an id without being seen: white space, and characters of no width that come with copied text.
_AROUND = " \t\r\n\v\f\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000\u200b\u200c\u200d\u2060\ufeff"
_QUOTES = "\"'` \\“”‘’«»"
# Not IS_POSSIBLE_LOCAL_ONLY: without its area code a number rings at somebody else's in each town.
_POSSIBLE = phonenumbers.ValidationResult.IS_POSSIBLE
_KOREAN_MOBILE = re.compile(r"01[016789]-?\d{3,4}-?\d{4}")


class IdentifierType(BaseModel):
    """One kind of identifier."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    namespace: str = Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")
    """Name of the type, as in the reference `loyalty:77`."""
    traits: tuple[str, ...] = ()
    """Traits of `identify` that carry it; the trait of the same name when empty. Not for `user_id`, `anonymous_id`."""
    normalise: Spelling = "text"
    """How a value gets its one spelling: `text` as it is, `lower` case, `email`, `phone` (E.164)."""
    limit: int = Field(0, ge=0)
    """Most values of this type that one person has; 0 is no limit."""
    shared: bool = False
    """True when it names a thing that people share, such as a household's telephone: weaker than everything, never the
    reason why two people are one, and of the first person it was seen with."""
    blocked: frozenset[str] = frozenset()
    """Values by which nobody is known, such as the telephone of a call centre."""


_DEFAULTS = (
    IdentifierType(namespace=USER_ID, limit=1),
    IdentifierType(namespace=EMAIL, normalise="email"),
    IdentifierType(namespace=PHONE, normalise="phone", blocked=frozenset({"010-0000-0000"})),
    IdentifierType(namespace=ANONYMOUS_ID),
)

JUNK_IDS = frozenset(
    {
        "anonymous", "guest", "distinct_id", "distinctid", "id", "not_authenticated", "email", "undefined", "null",
        "none", "nil", "true", "false", "nan", "0", "-1", "[object object]", "{}", "[]", "unknown", "n/a", "(null)",
        "<null>", "-", "infinity", "-infinity", "00000000-0000-0000-0000-000000000000",
        "비회원", "게스트", "익명",
    }
)  # fmt: skip
"""What clients send when they mean nobody, in lower case, without quotes (PostHog's list, and more)."""


def is_junk(value: str, further: frozenset[str] = frozenset()) -> bool:
    """Tell whether a value is one of the junk ids, also when quoted, or in letters of another width or form."""
    bare = _bare(value)
    return not bare or bare in JUNK_IDS or bare in further


def _bare(value: str) -> str:
    if not value.isascii():
        value = unicodedata.normalize("NFKC", value)
    return value.strip(_QUOTES).casefold()


class IdentifierTypes:
    """All types of identifier, strongest first."""

    def __init__(
        self,
        declared: Sequence[IdentifierType] = (),
        junk_ids: Iterable[str] = (),
        phone_region: str = DEFAULT_REGION,
    ) -> None:
        """Raises `Invalid` when the declared types contradict each other."""
        self.types = _in_order(declared)
        self._junk = frozenset(map(_bare, junk_ids))
        self._region = phone_region
        self._by_namespace = {known.namespace: known for known in self.types}
        self.rank = {known.namespace: place for place, known in enumerate(self.types)}
        """Place of each namespace: the lower, the stronger."""
        self.limits = {known.namespace: known.limit for known in self.types if known.limit}
        """Most values of a type per person, for the types that have a limit."""
        self.shared = frozenset(known.namespace for known in self.types if known.shared)
        """Namespaces of things that people share."""
        self.traits = {trait: known.namespace for known in self.types for trait in known.traits}
        """Namespace of each trait of `identify` that carries an identifier, strongest first."""
        self._spellings: dict[str, Spelling] = {known.namespace: known.normalise for known in self.types}
        self._blocked: dict[str, frozenset[str | None]] = {}
        self._blocked = {
            known.namespace: frozenset(self.spelt(known.namespace, value) for value in known.blocked)
            for known in self.types
            if known.blocked
        }
        self.normalise = lru_cache(maxsize=65_536)(self.spelt)
        """Bring a value into its one spelling; None when nobody can be known by it."""

    def __contains__(self, namespace: str) -> bool:
        return namespace in self._by_namespace

    def spelt(self, namespace: str, value: str) -> str | None:
        """Do what `normalise` does, without looking whether it was done before."""
        text = (value if value.isascii() else unicodedata.normalize("NFC", value)).strip(_AROUND)
        if not text or len(text) > MAX_VALUE_LENGTH or "\x00" in text or is_junk(text, self._junk):
            return None
        spelling = self._spellings[namespace]
        spelt = text if spelling == "text" else self._spell(spelling, text)
        return None if spelt in self._blocked.get(namespace, ()) else spelt

    def _spell(self, spelling: Spelling, text: str) -> str | None:
        if spelling == "email":
            return _email(unicodedata.normalize("NFKC", text))
        if spelling == "phone":
            return _phone(unicodedata.normalize("NFKC", text), self._region)
        return text.lower() if spelling == "lower" else text


def _in_order(declared: Sequence[IdentifierType]) -> tuple[IdentifierType, ...]:
    """Put the types in order: a built-in one that is not declared stands right behind its neighbour of the default."""
    types = list(declared)
    place = 0
    for built_in in _DEFAULTS:
        names = [known.namespace for known in types]
        if built_in.namespace not in names:
            types.insert(len(types) if built_in.namespace == ANONYMOUS_ID else place, built_in)
            names.insert(place, built_in.namespace)
        place = names.index(built_in.namespace) + 1
    types = [_with_traits(known) for known in types]
    _check(types)
    return tuple(sorted(types, key=lambda known: known.shared))


def _with_traits(known: IdentifierType) -> IdentifierType:
    if known.traits or known.namespace in _NOT_FROM_TRAITS:
        return known
    return known.model_copy(update={"traits": (known.namespace,)})


def _check(types: Sequence[IdentifierType]) -> None:
    names = [known.namespace for known in types]
    traits = [trait for known in types for trait in known.traits]
    for twice in sorted({name for name in names if names.count(name) > 1}):
        raise Invalid.field("DANGOL_IDENTIFIERS", f"declares {twice} twice")
    for twice in sorted({trait for trait in traits if traits.count(trait) > 1}):
        raise Invalid.field("DANGOL_IDENTIFIERS", f"the trait {twice} carries two types")
    for known in types:
        if known.namespace in _NOT_FROM_TRAITS and (known.traits or known.shared):
            raise Invalid.field("DANGOL_IDENTIFIERS", f"{known.namespace} comes from no trait and is not shared")


def _email(text: str) -> str | None:
    local, at, domain = text.lower().rpartition("@")
    if not at or not local or any(c.isspace() for c in text) or (is_junk(local) and is_junk(domain)):
        return None
    spelt = _domain(domain)
    return None if spelt is None else f"{local}@{spelt}"


def _domain(domain: str) -> str | None:
    """Spell an internationalised domain as DNS does (IDNA 2008, UTS 46): `xn--…`."""
    if domain.isascii():
        return domain.rstrip(".") or None
    try:
        return idna.encode(domain, uts46=True).decode().rstrip(".")
    except idna.IDNAError:
        return None


def _phone(text: str, region: str) -> str | None:
    # Nearly all numbers of the home market take this way; the library costs 50 times as much.
    if region == DEFAULT_REGION and _KOREAN_MOBILE.fullmatch(text):
        return "+82" + text.replace("-", "")[1:]
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    # An extension is one desk behind a line that many share, and E.164 cannot say it.
    if number.extension or phonenumbers.is_possible_number_with_reason(number) != _POSSIBLE:
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


BUILT_IN = IdentifierTypes()
"""The types of a platform that declares none of its own."""
