# SPDX-License-Identifier: Apache-2.0
"""Customers."""

from uuid import UUID

from chassis.clock import timestamp_from_us
from chassis.identity import format_profile_id
from dangol.profile.v1 import profile_pb2 as pb

from svc_profile.domain.events import FragmentKey
from svc_profile.domain.profiles import KnownAs, Profile
from svc_profile.wire.values import fill_struct

_MAX_UINT32 = 2**32 - 1


def profile_id(profile: FragmentKey) -> str:
    """Write a profile's id for people."""
    return format_profile_id(UUID(bytes=profile))


def profile_to_proto(profile: Profile) -> pb.Profile:
    """Write a customer."""
    message = pb.Profile(
        profile_id=profile_id(profile.profile),
        identifiers=[identifier_to_proto(known) for known in profile.known_as],
        first_seen_time=timestamp_from_us(profile.first_seen_us),
        last_seen_time=timestamp_from_us(profile.last_seen_us),
        event_counts={name: min(count, _MAX_UINT32) for name, count in profile.counts.items()},
        revenue={currency: float(value) for currency, value in profile.revenue.items()},
        groups=profile.groups,
    )
    fill_struct(message.traits, profile.traits)
    return message


def identifier_to_proto(known: KnownAs) -> pb.Identifier:
    """Write one name of a customer."""
    return pb.Identifier(
        namespace=known.namespace,
        value=known.value,
        first_seen_time=timestamp_from_us(known.first_seen_us),
        last_seen_time=timestamp_from_us(known.last_seen_us),
    )
