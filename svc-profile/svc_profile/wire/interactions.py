# SPDX-License-Identifier: Apache-2.0
"""Contacts of staff with customers."""

from collections.abc import Mapping
from typing import Any

from chassis.clock import timestamp_from_us
from chassis.errors import Invalid
from dangol.profile.v1 import agent_pb2 as pb
from dangol.profile.v1.profile_pb2 import OpenCase

from svc_profile.domain.interactions import Change, Choice, Draft, Interaction, Kept, Kind, Status
from svc_profile.wire.profiles import profile_id
from svc_profile.wire.values import bad_token, in_bigint, read_time, require_empty

_CHANGEABLE = ("subject", "text", "outcome", "status", "interaction_time")


def read_draft(message: pb.Interaction) -> Draft:
    """Read what is to be kept."""
    return Draft(
        kind=Kind(message.kind),
        subject=message.subject,
        text=message.text,
        outcome=message.outcome,
        status=Status(message.status) if message.status else None,
        interaction_time_us=_time(message),
    )


def read_change(request: pb.UpdateInteractionRequest) -> Change:
    """Read what is to be changed: the fields of the mask, or every one that is set."""
    message, paths = request.interaction, set(request.update_mask.paths)
    if unknown := sorted(paths - set(_CHANGEABLE)):
        raise Invalid.field("update_mask", f"{unknown[0]} cannot be changed; these can: {', '.join(_CHANGEABLE)}")
    if not paths:
        paths = {field.name for field, _ in message.ListFields()} & set(_CHANGEABLE)
    if "status" in paths and not message.status:
        raise Invalid.field("interaction.status", "must be OPEN, PENDING or CLOSED")
    if "interaction_time" in paths and not message.HasField("interaction_time"):
        raise Invalid.field("interaction.interaction_time", "cannot be taken away")
    return Change(
        subject=message.subject if "subject" in paths else None,
        text=message.text if "text" in paths else None,
        outcome=message.outcome if "outcome" in paths else None,
        status=Status(message.status) if "status" in paths else None,
        interaction_time_us=_time(message) if "interaction_time" in paths else None,
    )


def _time(message: pb.Interaction) -> int | None:
    if not message.HasField("interaction_time"):
        return None
    return read_time(message.interaction_time, "interaction.interaction_time")


def read_choice(request: pb.ListInteractionsRequest, token: Mapping[str, Any]) -> Choice:
    """Read which interactions are wanted."""
    return Choice(
        statuses=list(request.statuses), kinds=list(request.kinds), actor=request.actor, before=_position(token)
    )


def interaction_to_proto(kept: Kept) -> pb.Interaction:
    """Write one interaction."""
    interaction = kept.interaction
    message = pb.Interaction(
        interaction_id=interaction.interaction_id,
        profile_id=profile_id(kept.profile),
        kind=pb.InteractionKind.ValueType(interaction.kind),
        status=pb.InteractionStatus.ValueType(interaction.status),
        subject=interaction.subject,
        text=interaction.text,
        outcome=interaction.outcome,
        actor=interaction.actor,
        updated_by=interaction.updated_by,
        interaction_time=timestamp_from_us(interaction.interaction_time_us),
        created_time=timestamp_from_us(interaction.created_time_us),
        updated_time=timestamp_from_us(interaction.updated_time_us),
    )
    if interaction.closed_time_us is not None:
        message.closed_time.CopyFrom(timestamp_from_us(interaction.closed_time_us))
    return message


def open_case_to_proto(kept: Kept) -> OpenCase:
    """Write what is still to be dealt with."""
    interaction = kept.interaction
    return OpenCase(
        case_id=interaction.interaction_id,
        kind=interaction.kind.name.lower(),
        subject=interaction.subject,
        status=interaction.status.name.lower(),
        opened_time=timestamp_from_us(interaction.interaction_time_us),
        updated_time=timestamp_from_us(interaction.updated_time_us),
    )


def interaction_recorded(interaction: Interaction) -> pb.InteractionRecorded:
    """Say that an interaction was created or changed; its words stay here."""
    return pb.InteractionRecorded(
        interaction_id=interaction.interaction_id,
        fragment_id=interaction.fragment,
        kind=pb.InteractionKind.ValueType(interaction.kind),
        status=pb.InteractionStatus.ValueType(interaction.status),
        outcome=interaction.outcome,
        actor=interaction.updated_by,
        interaction_time=timestamp_from_us(interaction.interaction_time_us),
        updated_time=timestamp_from_us(interaction.updated_time_us),
    )


def position_of_interaction(kept: Kept) -> dict[str, Any]:
    """Write where an interaction stands in the list."""
    return {"time": kept.interaction.interaction_time_us, "id": kept.interaction.interaction_id}


def _position(token: Mapping[str, Any]) -> tuple[int, str] | None:
    match token:
        case {"time": int(time_us), "id": str(interaction_id)}:
            if "\x00" in interaction_id:
                raise bad_token()
            return in_bigint(time_us), interaction_id
    require_empty(token)
    return None
