# SPDX-License-Identifier: Apache-2.0
"""Customers who were looked for."""

from collections.abc import Mapping
from typing import Any

from chassis.clock import timestamp_from_us
from chassis.identifiers import ANONYMOUS_ID
from dangol.profile.v1 import agent_pb2 as pb

from svc_profile.domain.profiles import Profile
from svc_profile.domain.search import Match, names_in
from svc_profile.wire.profiles import identifier_to_proto, profile_id
from svc_profile.wire.values import in_bigint, key_in, require_empty

_MAX_IDENTIFIERS = 20


def match_to_proto(match: Match, profile: Profile) -> pb.ProfileMatch:
    """Write a customer who was found."""
    known = [each for each in profile.known_as if each.namespace != ANONYMOUS_ID]
    return pb.ProfileMatch(
        profile_id=profile_id(profile.profile),
        name=_name(profile.traits),
        match=pb.MatchedValue(namespace=match.kind, value=match.value, rank=pb.MatchRank.ValueType(match.rank)),
        identifiers=[identifier_to_proto(each) for each in known[:_MAX_IDENTIFIERS]],
        last_seen_time=timestamp_from_us(profile.last_seen_us),
    )


def _name(traits: Mapping[str, Any]) -> str:
    name = traits.get("name")
    return name if isinstance(name, str) and name else min(names_in(traits), default="")


def position_of_match(match: Match) -> dict[str, Any]:
    """Write where a match stands in the list."""
    return {"rank": match.rank, "seen": match.last_seen_us, "id": match.profile.hex()}


def match_position(token: Mapping[str, Any]) -> tuple[int, int, bytes] | None:
    """Read what `position_of_match` wrote; None is the beginning."""
    match token:
        case {"rank": 1 | 2 | 3 as rank, "seen": int(seen), "id": str(text)}:
            return rank, in_bigint(seen), key_in(text)
    require_empty(token)
    return None
