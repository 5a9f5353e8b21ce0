# SPDX-License-Identifier: Apache-2.0
"""What follows when it was found out anew who is who: what is written, and what is announced."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from svc_profile.domain.claims import Admission, Link, Pair
from svc_profile.domain.events import FragmentKey


@dataclass(frozen=True)
class Merge:
    """Profiles that became one."""

    profile: FragmentKey
    absorbed: tuple[FragmentKey, ...]
    evidence_us: int
    """Time of the latest event among the new evidence."""


@dataclass(frozen=True)
class Split:
    """A profile that became several."""

    profile: FragmentKey
    """Its id, which one of the parts may keep."""
    parts: tuple[FragmentKey, ...]
    evidence_us: int


@dataclass(frozen=True)
class Change:
    """What follows from new claims, or from what people decided."""

    links: Sequence[Link]
    """Links to be written."""
    moved: Mapping[FragmentKey, FragmentKey]
    """Fragments that belong to another profile now."""
    merges: Sequence[Merge]
    splits: Sequence[Split] = ()


NOTHING_NEW = Admission(links={}, touched=frozenset(), bound=frozenset())
"""When it is a decision that is new."""


class News(NamedTuple):
    """What is new."""

    admission: Admission
    new: Collection[FragmentKey]
    """Fragments that did not exist before."""
    decided_us: int = 0
    """When somebody decided, if that is what is new."""


class Move(NamedTuple):
    """Where fragments belonged and where they belong."""

    before: Mapping[FragmentKey, FragmentKey]
    after: Mapping[FragmentKey, FragmentKey]


def change_of(
    stored: Mapping[Pair, Link], links: Mapping[Pair, Link], refused: Collection[Pair], news: News, move: Move
) -> Change:
    """Say what has to be written and announced: links that are other than stored, and who became one or several."""
    decided = [
        Link(link.claim, link.eligible, refused=not link.eligible or pair in refused) for pair, link in links.items()
    ]
    return Change(
        links=[link for link in decided if stored.get(link.claim.pair) != link],
        moved={
            fragment: move.after[fragment]
            for fragment, profile in move.before.items()
            if move.after[fragment] != profile
        },
        merges=_merges(news, move),
        splits=_splits(news, move),
    )


def _merges(news: News, move: Move) -> list[Merge]:
    """Find ids that named different customers before and name the same one now; a newcomer is nobody's loss."""
    together: dict[FragmentKey, list[FragmentKey]] = {}
    for profile in {profile for fragment, profile in move.before.items() if fragment not in news.new}:
        together.setdefault(move.after[profile], []).append(profile)
    latest = _times(news, move)
    return [
        Merge(profile, tuple(sorted(set(formerly) - {profile})), latest.get(profile, latest[b""]))
        for profile, formerly in sorted(together.items())
        if len(formerly) > 1
    ]


def _splits(news: News, move: Move) -> list[Split]:
    """Find profiles that are several customers now; what only went over to somebody is no part of a split."""
    origins: dict[FragmentKey, set[FragmentKey]] = {}
    for fragment, profile in move.before.items():
        origins.setdefault(move.after[fragment], set()).add(profile)
    parts: dict[FragmentKey, list[FragmentKey]] = {}
    for customer, profiles in sorted(origins.items()):
        if len(profiles) == 1:
            parts.setdefault(min(profiles), []).append(customer)
    latest = _times(news, move)
    return [
        Split(profile, tuple(of), max(latest.get(part, latest[b""]) for part in of))
        for profile, of in sorted(parts.items())
        if len(of) > 1
    ]


def _times(news: News, move: Move) -> dict[FragmentKey, int]:
    """Return the time of the latest new evidence about each customer, and under no name that of all."""
    times = sorted(
        (link.claim.time_us, move.after[pair[0]]) for pair, link in news.admission.links.items() if link.eligible
    )
    latest = {profile: time_us for time_us, profile in times}
    return {**latest, b"": times[-1][0] if times else news.decided_us}
