# SPDX-License-Identifier: Apache-2.0
"""The state of consent is a function of what was said and of who is who, whatever the order."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from svc_profile.domain.consent import (
    OPEN,
    Admission,
    Answer,
    Entry,
    Folded,
    Join,
    Timeline,
    decide,
    fold,
    more_restrictive,
    timelines,
)

ANA, PHONE, WEB, TABLET = (bytes([n]) * 16 for n in range(1, 5))
FRAGMENTS = (ANA, PHONE, WEB, TABLET)
PURPOSES = ("analytics", "marketing_email")


def said(fragment: bytes, answer: Answer, time_us: int, *, purpose: str = "analytics", key: int = 0) -> Entry:
    """Return an entry that was received when it was said."""
    return Entry(fragment, purpose, answer, time_us, bytes([key]) * 16, time_us)


entries = st.lists(
    st.builds(
        said,
        st.sampled_from(FRAGMENTS),
        st.sampled_from(Answer),
        st.integers(0, 9),
        purpose=st.sampled_from(PURPOSES),
        key=st.integers(0, 255),
    ),
    unique_by=lambda entry: entry.event_key,
    max_size=8,
)
joins = st.lists(st.builds(Join, st.sampled_from(FRAGMENTS), st.sampled_from(FRAGMENTS), st.integers(0, 9)), max_size=5)


def decided(folded: Folded, fragment: bytes, purpose: str = "analytics") -> Answer | None:
    """Return what decides, if anything does."""
    entry = folded.answers[fragment].get(purpose)
    return None if entry is None else entry.answer


@given(entries, joins, st.randoms(use_true_random=False))
def test_no_order_of_arrival_changes_the_state(entries: Sequence[Entry], joins: Sequence[Join], chance: object) -> None:
    """Nor does it change how events are judged."""
    mixed, turned = list(entries), [Join(join.other, join.one, join.time_us) for join in joins]
    chance.shuffle(mixed)  # type: ignore[attr-defined]
    chance.shuffle(turned)  # type: ignore[attr-defined]
    assert fold(FRAGMENTS, joins, entries).answers == fold(FRAGMENTS[::-1], turned, mixed).answers
    judged = timelines(FRAGMENTS, joins, entries, granted_by_default=True)
    assert all(
        judged[key].is_open(time_us)
        == timelines(FRAGMENTS, turned, mixed, granted_by_default=True)[key].is_open(time_us)
        for key in FRAGMENTS
        for time_us in range(11)
    )


@given(entries, joins)
def test_saying_it_twice_says_nothing_more(entries: Sequence[Entry], joins: Sequence[Join]) -> None:
    """Repeated events and repeated evidence change nothing."""
    assert fold(FRAGMENTS, [*joins, *joins], [*entries, *entries]).answers == fold(FRAGMENTS, joins, entries).answers


@given(entries, joins)
def test_the_most_restrictive_answer_wins_a_merge(entries: Sequence[Entry], joins: Sequence[Join]) -> None:
    """Two customers who become one are refused what either refused; nothing but a newer grant changes that."""
    apart = fold(FRAGMENTS, joins, entries)
    together = fold(FRAGMENTS, [*joins, Join(ANA, WEB, 10)], entries)
    for purpose in PURPOSES:
        sides = [apart.answers[side].get(purpose) for side in (ANA, WEB)]
        merged = together.answers[ANA].get(purpose)
        assert together.answers[WEB].get(purpose) == merged
        assert merged in sides
        if any(side is not None and side.is_refusal for side in sides):
            assert merged is not None
            assert merged.is_refusal
        granted = Entry(WEB, purpose, Answer.GRANTED, 11, b"n" * 16)
        renewed = fold(FRAGMENTS, [*joins, Join(ANA, WEB, 10)], [*entries, granted])
        assert renewed.answers[ANA][purpose] == granted


@given(entries, joins)
def test_a_split_gives_each_side_its_own_answers(entries: Sequence[Entry], joins: Sequence[Join]) -> None:
    """Without the join that is taken back, the state is what it was: a merge and a split are exact inverses."""
    before = fold(FRAGMENTS, joins, entries)
    merged = fold(FRAGMENTS, [*joins, Join(ANA, WEB, 10)], entries)
    after = fold(FRAGMENTS, joins, entries)
    assert after.answers == before.answers
    assert merged.answers.keys() == before.answers.keys()


@given(st.lists(st.dictionaries(st.sampled_from(PURPOSES), st.sampled_from(Answer)), min_size=3, max_size=3))
def test_joining_is_commutative_and_associative(sides: Sequence[dict[str, Answer]]) -> None:
    """So that joins at the same moment need no order."""
    a, b, c = (
        {purpose: said(ANA, answer, number, purpose=purpose, key=number) for purpose, answer in side.items()}
        for number, side in enumerate(sides)
    )
    assert more_restrictive(a, b) == more_restrictive(b, a)
    assert more_restrictive(more_restrictive(a, b), c) == more_restrictive(a, more_restrictive(b, c))


def test_a_refusal_before_a_login_outlives_the_grant_of_the_account() -> None:
    """The visitor said no at 3, the account had said yes at 5, they became one at 7."""
    said_of_both = [said(WEB, Answer.DENIED, 3), said(ANA, Answer.GRANTED, 5)]
    assert decided(fold(FRAGMENTS, [Join(WEB, ANA, 7)], said_of_both), ANA) is Answer.DENIED
    late = said(PHONE, Answer.GRANTED, 8)
    folded = fold(FRAGMENTS, [Join(WEB, ANA, 7), Join(PHONE, ANA, 7)], [*said_of_both, late])
    assert decided(folded, WEB) is Answer.GRANTED


def test_a_device_that_never_answered_takes_nothing_away() -> None:
    """Silence is not an answer, so that a new phone does not withdraw a consent."""
    assert decided(fold(FRAGMENTS, [Join(PHONE, ANA, 7)], [said(ANA, Answer.GRANTED, 5)]), PHONE) is Answer.GRANTED


def test_of_a_grant_and_a_refusal_at_once_the_refusal_holds() -> None:
    """Whatever the keys of the events are."""
    both = [said(ANA, Answer.GRANTED, 5, key=9), said(ANA, Answer.DENIED, 5, key=1)]
    assert decided(fold(FRAGMENTS, [], both), ANA) is Answer.DENIED


def test_events_are_judged_by_what_was_known_when_they_were_received() -> None:
    """A refusal at 5 that is taken back at 9; the device is known to belong to the customer from 7 on."""
    judged = timelines(
        FRAGMENTS,
        [Join(PHONE, ANA, 7)],
        [said(ANA, Answer.WITHDRAWN, 5), said(ANA, Answer.GRANTED, 9)],
        granted_by_default=True,
    )
    assert [judged[ANA].is_open(time_us) for time_us in (4, 5, 8, 9)] == [True, False, False, True]
    assert [judged[PHONE].is_open(time_us) for time_us in (5, 6, 7, 9)] == [True, True, False, True]
    assert judged[ANA].closes_after() == 5
    assert judged[TABLET] == OPEN


def test_an_event_that_refuses_is_refused_whatever_is_known() -> None:
    """One that grants is not a grant: a device repeats what it was once told."""
    closed = Timeline(refused=((5, True),))
    assert decide(4, closed, Admission.DROP) is Admission.KEEP
    assert decide(6, closed, Admission.DROP, said=True) is Admission.DROP
    assert decide(6, OPEN, Admission.ANONYMISE, said=False) is Admission.ANONYMISE
    assert decide(6, Timeline(granted_by_default=False), Admission.DROP) is Admission.DROP
    assert decide(6, Timeline(restricted=((5, True),)), Admission.ANONYMISE, said=True) is Admission.DROP


def test_a_default_holds_from_when_it_was_changed() -> None:
    """Events that came before are judged by the one that held then."""
    asked_first = Timeline(granted_by_default=False, default_since_us=5, refused=((8, False),))
    assert [asked_first.is_open(time_us) for time_us in (4, 5, 7, 8)] == [True, False, False, True]
    assert asked_first.closes_after() == 5
