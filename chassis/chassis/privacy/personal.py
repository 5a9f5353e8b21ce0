# SPDX-License-Identifier: Apache-2.0
"""What a store of personal data has to be able to do, whatever engine it is kept in."""

import re
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol
from uuid import UUID

from chassis.database import Transaction
from chassis.identity import format_profile_id

_SHORTEST_WORD = 4
"""Bytes of UTF-8. A shorter value is looked for as a whole text only: `7` is part of everything."""


@dataclass(frozen=True)
class Kept:
    """Rows that an erasure leaves, and the reason that the customer is told."""

    what: str
    count: int
    why: str


@dataclass
class Erased:
    """What an erasure did in one store."""

    removed: dict[str, int] = field(default_factory=dict)
    """Number of rows by table."""
    kept: list[Kept] = field(default_factory=list)

    def add(self, other: "Erased") -> None:
        """Add what was done in another store."""
        for what, count in other.removed.items():
            self.removed[what] = self.removed.get(what, 0) + count
        self.kept += other.kept


@dataclass(frozen=True)
class Traces:
    """What a customer might be recognised by: fragments, and the texts that name the customer."""

    fragments: Sequence[UUID]
    values: Sequence[str]

    @cached_property
    def names(self) -> list[str]:
        """All texts to look for: the given ones, and every spelling of the fragments."""
        spelt = [text for f in self.fragments for text in (str(f), f.hex, format_profile_id(f), _base64(f.bytes))]
        return [*dict.fromkeys(value for value in [*self.values, *spelt] if value)]

    @cached_property
    def pattern(self) -> str:
        """Regular expression of PostgreSQL that finds a name as a word, a short one as a whole or quoted text only.

        `kim` is no word in `kim-2`, `kim.lee` and `kim@example.com`: those are names of others.
        """
        parts = []
        if self._long:
            words = "|".join(map(_literal, self._long))
            parts.append(f"(?<![[:alnum:]_@+.-])(?:{words})(?![[:alnum:]_@+-]|[.][[:alnum:]])")
        if self._short:
            parts.append(f'(?<![^"])(?:{"|".join(map(_literal, self._short))})(?![^"])')
        return "|".join(parts) or "(?!)"

    @cached_property
    def anywhere(self) -> str:
        """Regular expression of PostgreSQL that finds a name inside of words too: what it finds has to be looked at."""
        return "|".join(map(_literal, self.names)) or "(?!)"

    @cached_property
    def anywhere_in_bytes(self) -> str:
        """The same for bytes as PostgreSQL spells them (`encode(…, 'escape')`), also with ids of fragments."""
        spelt = [*(name.encode() for name in self.names), *(f.bytes for f in self.fragments)]
        return "|".join(_literal(_escaped(each)) for each in spelt) or "(?!)"

    @cached_property
    def needles(self) -> list[bytes]:
        """What to look for in bytes: a name as protobuf and as JSON write it, and the ids of the fragments."""
        return [*_written(self.names), *(f.bytes for f in self.fragments)]

    def found_in(self, data: bytes) -> bool:
        """Tell whether bytes name the customer: a message, JSON, or text in any case of letters."""
        # Nearly all bytes name nobody, and looking for plain bytes takes a hundredth of a regular expression.
        lower = data.lower()
        if any(name in lower for name in self._lower):
            found = any(needle in data for needle in self.needles)
            return found or self.word.search(data.decode(errors="replace")) is not None
        return any(needle in data for needle in self._needles_of_few_bytes)

    @cached_property
    def _long(self) -> list[str]:
        return [name for name in self.names if len(name.encode()) >= _SHORTEST_WORD]

    @cached_property
    def _lower(self) -> list[bytes]:
        return [name.encode().lower() for name in self._long]

    @cached_property
    def _needles_of_few_bytes(self) -> list[bytes]:
        return [*_written(self._short), *(f.bytes for f in self.fragments)]

    @cached_property
    def _short(self) -> list[str]:
        return [name for name in self.names if len(name.encode()) < _SHORTEST_WORD]

    @cached_property
    def word(self) -> re.Pattern[str]:
        """The same for Python, as far as names are long enough to be words."""
        words = "|".join(map(re.escape, self._long)) or "(?!)"
        return re.compile(f"(?<![\\w@+.-])(?:{words})(?![\\w@+-]|[.]\\w)", re.IGNORECASE)


def _literal(text: str) -> str:
    """Escape what means something in a regular expression of PostgreSQL."""
    return "".join(c if c.isalnum() or c in "_ " or not c.isascii() else f"\\{c}" for c in text)


def _escaped(data: bytes) -> str:
    """Spell bytes as PostgreSQL does: octal for 0 and what is no ASCII, a backslash twice."""
    spelling = {0: "\\000", 92: "\\\\"}
    return "".join(spelling.get(byte) or (chr(byte) if byte < 128 else f"\\{byte:03o}") for byte in data)


def _written(names: Sequence[str]) -> list[bytes]:
    """Write names as protobuf and as JSON do."""
    encoded = [name.encode() for name in names]
    return [*(_varint(len(each)) + each for each in encoded), *(b'"' + each + b'"' for each in encoded)]


def _base64(data: bytes) -> str:
    """Write bytes as the JSON of protobuf does."""
    return b64encode(data).decode()


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


class PersonalStore(Protocol):
    """Personal data in one engine of one service."""

    async def erase(self, tx: Transaction, fragments: Sequence[UUID]) -> Erased:
        """Remove all of a customer; once more does nothing more."""

    async def forget(self, tx: Transaction, fragments: Sequence[UUID]) -> None:
        """Remove the data of fragments that were derived again elsewhere, but not where the fragments belong."""

    def export(self, tx: Transaction, fragments: Sequence[UUID]) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """Return all of a customer, row by row, each with the name of the file that it belongs to."""

    async def probe(self, tx: Transaction, traces: Traces) -> dict[str, int]:
        """Search every column of every table; return the number of rows found by `<table>.<column>`, zeros included."""
