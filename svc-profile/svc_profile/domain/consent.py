# SPDX-License-Identifier: Apache-2.0
"""What a customer consented to: a fold over ledger entries and joins that no order of arrival can change.

Fragments begin as groups of one. Joins and entries happen in the order of their times, joins first where times are
equal. An entry replaces what its whole group answered for the purpose before. When two groups join, the more
restrictive answer of each purpose wins, until a newer entry replaces it. A split takes joins away, and so gives each
side what its own entries say.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from svc_profile.domain.events import FragmentKey

ANALYTICS = "analytics"
"""The purpose without which events are not taken in."""

RESTRICTION = "restriction"
"""Not a purpose of the catalogue: withdrawn while the processing of the customer is restricted or objected to."""


class Answer(StrEnum):
    """What was said about a purpose."""

    GRANTED = "granted"
    DENIED = "denied"
    WITHDRAWN = "withdrawn"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What one ledger row says, as far as the state depends on it."""

    fragment: FragmentKey
    purpose_id: str
    answer: Answer
    time_us: int
    """When it was said."""
    event_key: bytes
    """16 bytes that name the event or the call: breaks ties."""
    received_time_us: int = 0
    """When the platform learnt of it: from then on events are judged by it."""
    sequence: int = 0
    """Place in the ledger; of no matter for the state."""

    @property
    def is_refusal(self) -> bool:
        """True for everything but a grant."""
        return self.answer is not Answer.GRANTED

    @property
    def order(self) -> tuple[int, bool, bytes]:
        """The one order of entries: of two at the same microsecond, the refusal is the later."""
        return self.time_us, self.is_refusal, self.event_key

    def received(self) -> "Entry":
        """Return the same entry as if it had been said when it was received."""
        return msgspec.structs.replace(self, time_us=self.received_time_us)


class Join(msgspec.Struct, frozen=True, gc=False):
    """From when on two fragments are known to be one customer."""

    one: FragmentKey
    other: FragmentKey
    time_us: int


Answers = dict[str, Entry]
"""The entry that decides each purpose; a purpose without one has its default."""


@dataclass(frozen=True)
class Step:
    """From a moment on, which entry decides."""

    from_us: int
    entry: Entry


@dataclass(frozen=True)
class Folded:
    """What a fold found out."""

    answers: Mapping[FragmentKey, Answers]
    """For each fragment, what its group answered."""
    steps: Mapping[FragmentKey, Sequence[Step]]
    """For each fragment, how the watched purpose was decided over time; empty for one that nothing was said about."""


def fold(
    fragments: Iterable[FragmentKey], joins: Iterable[Join], entries: Iterable[Entry], *, watch: str = ""
) -> Folded:
    """Fold what was said by and about some fragments; `watch` names a purpose whose history is wanted."""
    groups = _Groups(fragments, watch)
    acts: list[Join | Entry] = [*joins, *entries]
    for act in sorted(acts, key=_order):
        if isinstance(act, Join):
            groups.join(act)
        else:
            groups.take(act)
    return Folded({key: groups.answers_of(key) for key in groups.roots}, groups.steps)


def _order(act: Join | Entry) -> tuple[int, int, bool, bytes]:
    return (act.time_us, 0, False, b"") if isinstance(act, Join) else (act.time_us, 1, *act.order[1:])


class _Groups:
    """Groups of fragments while time passes."""

    def __init__(self, fragments: Iterable[FragmentKey], watch: str) -> None:
        self.roots = {key: key for key in fragments}
        self.steps: dict[FragmentKey, list[Step]] = {}
        self._members = {key: [key] for key in self.roots}
        self._answers: dict[FragmentKey, Answers] = {key: {} for key in self.roots}
        self._watch = watch

    def answers_of(self, fragment: FragmentKey) -> Answers:
        return self._answers[self.roots[fragment]]

    def join(self, act: Join) -> None:
        """Put two groups together; the smaller one moves, so that long chains stay cheap."""
        if act.one not in self.roots or act.other not in self.roots:
            return
        small, large = sorted(
            (self.roots[act.one], self.roots[act.other]), key=lambda root: (len(self._members[root]), root)
        )
        if small == large:
            return
        sides = self._answers[large].get(self._watch), self._answers[small].get(self._watch)
        self._answers[large] = more_restrictive(self._answers[large], self._answers.pop(small))
        moved = self._members.pop(small)
        self.roots |= dict.fromkeys(moved, large)
        decided = self._answers[large].get(self._watch)
        for side, members in zip(sides, (self._members[large], moved), strict=True):
            if decided is not side:
                self._note(members, act.time_us, decided)
        self._members[large] += moved

    def take(self, entry: Entry) -> None:
        """Let a group answer."""
        root = self.roots.get(entry.fragment)
        if root is None:
            return
        self._answers[root][entry.purpose_id] = entry
        if entry.purpose_id == self._watch:
            self._note(self._members[root], entry.time_us, entry)

    def _note(self, members: Iterable[FragmentKey], time_us: int, entry: Entry | None) -> None:
        if entry is not None:
            for member in members:
                self.steps.setdefault(member, []).append(Step(time_us, entry))


def more_restrictive(one: Answers, other: Answers) -> Answers:
    """Of two sides, keep a refusal before a grant, and of two alike the later; silence is no answer."""
    merged = dict(one)
    for purpose_id, entry in other.items():
        known = merged.get(purpose_id)
        if known is None or (known.is_refusal, known.order) < (entry.is_refusal, entry.order):
            merged[purpose_id] = entry
    return merged


class Admission(StrEnum):
    """What becomes of an event."""

    KEEP = "keep"
    DROP = "drop"
    ANONYMISE = "anonymise"


@dataclass(frozen=True)
class Timeline:
    """When a customer's events may be taken in, by the time at which they were received."""

    granted_by_default: bool = True
    default_since_us: int = 0
    """When the default became what it is; before, it was the opposite."""
    refused: Sequence[tuple[int, bool]] = ()
    """From a time on, whether the analytics purpose is refused; in the order of time."""
    restricted: Sequence[tuple[int, bool]] = ()
    """From a time on, whether processing is restricted; in the order of time."""

    def is_open(self, received_us: int) -> bool:
        """Tell whether an event that was received at a time may be taken in."""
        return not self.is_refused(received_us) and not self.is_restricted(received_us)

    def is_refused(self, received_us: int) -> bool:
        """Tell whether the analytics purpose was refused at a time."""
        default = self.granted_by_default if received_us >= self.default_since_us else not self.granted_by_default
        return self._at(self.refused, received_us, not default)

    def is_restricted(self, received_us: int) -> bool:
        """Tell whether processing was restricted at a time."""
        return self._at(self.restricted, received_us, False)

    def closes_after(self) -> int | None:
        """Return the first time from which something may have to be refused, None when there is none."""
        times = [time_us for steps in (self.refused, self.restricted) for time_us, refused in steps if refused]
        return min(times if self.granted_by_default else [*times, self.default_since_us], default=None)

    @staticmethod
    def _at(steps: Sequence[tuple[int, bool]], time_us: int, default: bool) -> bool:
        place = bisect_right(steps, time_us, key=lambda step: step[0])
        return steps[place - 1][1] if place else default


OPEN = Timeline()
"""Of a customer who has said nothing, while analytics is granted by default."""


def decide(received_us: int, timeline: Timeline, otherwise: Admission, said: bool | None = None) -> Admission:
    """Say what becomes of an event: `said` is what it says itself of the analytics purpose, `otherwise` the setting.

    An event that refuses is refused, whatever else is known; one that grants is judged like one that says nothing,
    because a device repeats what it was once told. Of a customer who has restricted processing nothing is even counted.
    """
    if timeline.is_restricted(received_us):
        return Admission.DROP
    return otherwise if said is False or timeline.is_refused(received_us) else Admission.KEEP


def timelines(
    fragments: Collection[FragmentKey],
    joins: Sequence[Join],
    entries: Sequence[Entry],
    *,
    granted_by_default: bool,
    default_since_us: int = 0,
    expires: Callable[[int], int | None] | None = None,
) -> dict[FragmentKey, Timeline]:
    """Return how events of each fragment are judged, by when what was said was received.

    `expires` says until when a grant of the analytics purpose holds that was given at a time.
    """
    received = [entry.received() for entry in entries]
    refused = fold(fragments, joins, received, watch=ANALYTICS).steps
    restricted = fold(fragments, joins, received, watch=RESTRICTION).steps
    return {
        key: Timeline(
            granted_by_default,
            default_since_us,
            tuple(_refusals(refused.get(key, ()), expires)),
            tuple(_refusals(restricted.get(key, ()))),
        )
        for key in fragments
    }


def _refusals(steps: Sequence[Step], expires: Callable[[int], int | None] | None = None) -> Iterator[tuple[int, bool]]:
    for place, step in enumerate(steps):
        yield step.from_us, step.entry.is_refusal
        if step.entry.is_refusal or expires is None:
            continue
        end_us = expires(step.entry.time_us)
        if end_us is not None and (place + 1 == len(steps) or end_us < steps[place + 1].from_us):
            yield max(end_us, step.from_us), True
