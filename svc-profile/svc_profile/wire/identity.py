# SPDX-License-Identifier: Apache-2.0
"""What is told about identity."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from chassis.clock import timestamp_from_us
from dangol.profile.v1 import identity_pb2 as pb

from svc_profile.domain.changes import Merge, Split
from svc_profile.domain.claims import Pair
from svc_profile.domain.events import FragmentKey
from svc_profile.domain.identity import Conflict, Placement
from svc_profile.wire.profiles import identifier_to_proto, profile_id
from svc_profile.wire.values import in_bigint, key_in, require_empty

MAX_MAPPINGS = 1_000


def fragments_remapped(moved: Mapping[FragmentKey, Placement]) -> Iterator[pb.FragmentsRemapped]:
    """Say where fragments belong now, in messages of at most 1,000."""
    items = sorted(moved.items())
    for start in range(0, len(items), MAX_MAPPINGS):
        yield pb.FragmentsRemapped(
            mappings=[
                pb.FragmentMapping(fragment_id=fragment, profile_id=place.profile, revision=place.revision)
                for fragment, place in items[start : start + MAX_MAPPINGS]
            ]
        )


def fragments_forgotten(
    fragments: Iterable[FragmentKey], reason: pb.ForgetReason.ValueType
) -> Iterator[pb.FragmentsForgotten]:
    """Say which fragments hold nothing any more, in messages of at most 1,000."""
    keys = sorted(fragments)
    for start in range(0, len(keys), MAX_MAPPINGS):
        yield pb.FragmentsForgotten(fragment_ids=keys[start : start + MAX_MAPPINGS], reason=reason)


def profiles_merged(merge: Merge) -> pb.ProfilesMerged:
    """Say which profiles became one."""
    return pb.ProfilesMerged(
        profile_id=profile_id(merge.profile),
        absorbed_profile_ids=[profile_id(absorbed) for absorbed in merge.absorbed],
        evidence_time=timestamp_from_us(merge.evidence_us),
    )


def profiles_split(split: Split) -> pb.ProfilesSplit:
    """Say which profiles one became."""
    return pb.ProfilesSplit(
        profile_id=profile_id(split.profile),
        split_profile_ids=[profile_id(part) for part in split.parts],
        evidence_time=timestamp_from_us(split.evidence_us),
    )


def conflict_to_proto(conflict: Conflict) -> pb.IdentityConflict:
    """Write a refused link."""
    return pb.IdentityConflict(
        identifier=identifier_to_proto(conflict.identifier),
        profile_id=profile_id(conflict.profile),
        claiming_profile_id=profile_id(conflict.claiming_profile),
        rule=conflict.rule,
        message_id=conflict.message_id,
        claim_time=timestamp_from_us(conflict.claim_time_us),
        conflict_id=b"".join(conflict.pair).hex(),
        confidence=conflict.confidence,
    )


def read_conflict_id(text: str) -> Pair:
    """Read the pair that a conflict is about."""
    both = bytes.fromhex(text)
    return both[:16], both[16:]


def position_of_conflict(conflict: Conflict) -> dict[str, Any]:
    """Write where a conflict stands in the list."""
    child, parent = conflict.pair
    return {"time": conflict.claim_time_us, "child": child.hex(), "parent": parent.hex()}


def conflict_position(token: Mapping[str, Any]) -> tuple[int, FragmentKey, FragmentKey] | None:
    """Read what `position_of_conflict` wrote; None is the beginning."""
    match token:
        case {"time": int(time_us), "child": str(child), "parent": str(parent)}:
            return in_bigint(time_us), key_in(child), key_in(parent)
    require_empty(token)
    return None
