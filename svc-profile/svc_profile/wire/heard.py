# SPDX-License-Identifier: Apache-2.0
"""What other services announce about customers."""

from collections.abc import Iterable

from dangol.feedback.v1.feedback_pb2 import FeedbackRecorded
from dangol.segmentation.v1.segmentation_pb2 import MembershipsChanged, SegmentDeleted, SegmentSaved, StageChanged

from svc_profile.domain.heard import Feedback, MembershipChange, StageChange


def read_memberships(messages: Iterable[MembershipsChanged]) -> list[MembershipChange]:
    """Read who entered and left segments."""
    return [
        MembershipChange(
            segment_id=change.segment_id,
            segment_name=change.segment_name,
            profile=change.profile_id,
            member=change.member,
            revision=change.revision,
            change_time_us=change.change_time.ToMicroseconds(),
            rule_version=change.rule_version,
        )
        for message in messages
        for change in message.changes
    ]


def read_segment_names(messages: Iterable[SegmentSaved]) -> list[tuple[str, str, int]]:
    """Read what segments are called: id, name, time of saving."""
    return [(message.segment_id, message.name, message.saved_time.ToMicroseconds()) for message in messages]


def read_deleted_segments(messages: Iterable[SegmentDeleted]) -> list[tuple[str, str]]:
    """Read which segments are gone: id and name."""
    return [(message.segment_id, message.name) for message in messages]


def read_stages(messages: Iterable[StageChanged]) -> list[StageChange]:
    """Read where customers stand."""
    return [
        StageChange(
            profile=message.profile_id,
            track=message.track,
            old_stage=message.old_stage,
            new_stage=message.new_stage,
            rule_version=message.rule_version,
            revision=message.revision,
            change_time_us=message.change_time.ToMicroseconds(),
            evidence=message.evidence,
        )
        for message in messages
    ]


def read_feedback(messages: Iterable[FeedbackRecorded]) -> list[Feedback]:
    """Read that customers said something; feedback of nobody is of no matter here."""
    return [
        Feedback(
            feedback_id=message.feedback_id,
            fragment=message.fragment_id,
            kind=message.kind,
            rating=message.rating if message.HasField("rating") else None,
            sentiment=message.sentiment,
            sentiment_probability=message.sentiment_probability,
            item_id=message.item_id,
            language=message.language,
            feedback_time_us=message.feedback_time.ToMicroseconds(),
        )
        for message in messages
        if message.fragment_id
    ]
