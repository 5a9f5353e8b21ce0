# SPDX-License-Identifier: Apache-2.0
"""Regular expressions mean to PostgreSQL what RE2 says they mean."""

import pytest
import re2  # type: ignore[import-untyped]
from chassis.database import Database
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from svc_segmentation.domain.patterns import PatternError, to_postgres

TEXTS = (
    "", "a", "ab", "AB", "Seoul", "서울특별시", "김단골", "a.b", "a\nb", "\n", "a b", "a-b_c", "12", "x@naver.com",
    "010-1234-5678", "{a}", "[a]", "a\\b", "aaaa", "***:a", "^a$",
)  # fmt: skip
"""Texts that patterns are tried on."""

PATTERNS = (
    "", "a", "^a$", "a|b|", "^$", "a.b", "(?s)a.b", "(?i)seoul$", "^[가-힣]{2,4}$", r"\d{3}-\d{4}-\d{4}$", r"^\w+$",
    r"\bb\b", r"\Bb", r"\s", r"[^\n]b", "[]a]", "[^]a]", "[a\\-b]", "[a-]", "[[:digit:]]+$", "[[:punct:]]", r"a\\b",
    r"\x41", r"\x{C11C}", "(?:ab)+", "(?P<x>a)(?<y>b)", "a{2}$", "a{2,}$", "a{,2}", "{a}", "a*?$", r"\Aa\z",
    r"\D\W\S", r"[\d\w\s.]+$", r"\*\*\*", r"\^a\$", "()", "(|a)b", "[a^]", r"[\^a]", "(?is)A.B", r"\t|\v|\f|\r|\a|\n",
)  # fmt: skip

REFUSED = (
    "(", ")", "a)", "[", "[a", "[b-a]", "*", "a**", "^*", r"\b+", "(?=a)", "(?!a)", "(?<=a)", r"(a)\1", r"\p{L}",
    r"\pL", r"\Qa\E", "a(?i)b", "(?m)a", "[[:nothing:]]", r"\x{110000}", r"\x00", r"\x{D800}", "a{256}", "a{3,2}",
    "((a{99}){99}){99}", "a\\", r"\q", r"\C", "(" * 30 + ")" * 30, "a" * 501, r"[\D]", r"[\b]", "(?P<1>a)",
    r"\x{ }", "***:a", "{2}",
)  # fmt: skip


async def found(database: Database, pattern: str) -> list[bool]:
    """Ask PostgreSQL on which texts a pattern is found."""
    async with database.snapshot() as tx:
        rows = await tx.rows(
            'SELECT (t COLLATE "C") ~ :pattern'
            " FROM unnest(CAST(:texts AS text[])) WITH ORDINALITY AS g (t, n) ORDER BY n",
            pattern=to_postgres(pattern),
            texts=list(TEXTS),
        )
    return [row[0] for row in rows]


@pytest.mark.parametrize("pattern", PATTERNS)
async def test_postgresql_finds_what_re2_finds(database: Database, pattern: str) -> None:
    """On texts with line breaks, Korean letters and signs."""
    assert await found(database, pattern) == [re2.search(pattern, text) is not None for text in TEXTS]


@pytest.mark.parametrize("pattern", REFUSED)
def test_what_the_two_would_read_differently_is_refused(pattern: str) -> None:
    """And so is what neither can read, or what would take too long to compile."""
    with pytest.raises(PatternError):
        to_postgres(pattern)


pieces = st.sampled_from(
    [*"ab.^$|()*+?[]{}-\\", "[a-c]", "(?:", "서", r"\d", r"\w", r"\b", r"\.", "{1,2}", "{2}", "[^a]", "(?i)", "\n"]
)


@settings(max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(st.lists(pieces, max_size=8).map("".join))
async def test_whatever_is_taken_means_the_same(database: Database, pattern: str) -> None:
    """Any pattern that is not refused is one for RE2 too, and is found in the same texts."""
    try:
        to_postgres(pattern)
    except PatternError:
        return
    assert await found(database, pattern) == [re2.search(pattern, text) is not None for text in TEXTS], pattern
