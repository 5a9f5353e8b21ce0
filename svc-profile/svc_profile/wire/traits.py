# SPDX-License-Identifier: Apache-2.0
"""Traits: what events state, definitions, histories, computed traits."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from chassis.clock import timestamp_from_us
from chassis.errors import Invalid
from chassis.events import json_object
from dangol.events.v1 import events_pb2
from dangol.profile.v1 import traits_pb2 as pb
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value

from svc_profile.domain.computed import Aggregate, ComputedTrait, Condition, Operator
from svc_profile.domain.definitions import Enforcement, TraitDefinition, TraitSchema, TraitType
from svc_profile.domain.derivation import TraitChange
from svc_profile.domain.events import NO_TRAITS
from svc_profile.domain.fragments import storable
from svc_profile.domain.traits import Policy
from svc_profile.wire.values import bad_token, fill_struct, in_bigint, require_empty

M = TypeVar("M", bound=Message)

MAX_FOLDED = 500

_TYPES: dict[int, TraitType] = {
    pb.TRAIT_TYPE_UNSPECIFIED: TraitType.ANY,
    **{pb.TraitType.Value(f"TRAIT_TYPE_{kind}"): kind for kind in TraitType if kind is not TraitType.ANY},
}
_POLICIES: dict[int, Policy] = {pb.TraitPolicy.Value(f"TRAIT_POLICY_{policy}"): policy for policy in Policy}
_ENFORCEMENTS: dict[int, Enforcement] = {
    pb.TRAIT_ENFORCEMENT_UNSPECIFIED: Enforcement.OFF,
    pb.TRAIT_ENFORCEMENT_WARN: Enforcement.WARN,
    pb.TRAIT_ENFORCEMENT_REJECT: Enforcement.REJECT,
}
_AGGREGATES: dict[int, Aggregate] = {
    pb.ComputedTraitAggregate.Value(f"COMPUTED_TRAIT_AGGREGATE_{aggregate}"): aggregate for aggregate in Aggregate
}
_OPERATORS: dict[int, Operator] = {
    pb.ConditionOperator.Value(f"CONDITION_OPERATOR_{operator}"): operator for operator in Operator
}


def traits_of(message: events_pb2.Event) -> Mapping[str, Any]:
    """Return what an event states about the customer."""
    if message.type != events_pb2.EVENT_TYPE_IDENTIFY or not message.traits:
        return NO_TRAITS
    traits: Mapping[str, Any] = storable(json_object(message.traits))
    return traits


def properties_of(message: events_pb2.Event) -> Mapping[str, Any]:
    """Return the properties of an event; of `identify` and `group` the traits."""
    return json_object(message.properties or message.traits)


def without_refused_traits(batch: events_pb2.EventBatch, schema: TraitSchema) -> events_pb2.EventBatch:
    """Return resolved events without the traits that are not learnt, so that no other service learns them either."""
    if not any(definition.rejects for definition in schema.enforced.values()):
        return batch
    return events_pb2.EventBatch(events=[_without_refused_traits(event, schema) for event in batch.events])


def _without_refused_traits(event: events_pb2.Event, schema: TraitSchema) -> events_pb2.Event:
    traits = traits_of(event)
    accepted = schema.accepted(traits)
    if accepted is traits:
        return event
    left = events_pb2.Event()
    left.CopyFrom(event)
    left.traits = msgspec.json.encode(accepted)
    return left


def masked(known: M, wanted: M, mask: FieldMask, field: str) -> M:
    """Return a resource with the fields of a mask changed; an empty mask is every field that is set."""
    changeable = {each.name for each in known.DESCRIPTOR.fields} - {"name", "created_time", "updated_time"}
    paths = set(mask.paths) - {"name"} if mask.paths else {each.name for each, _ in wanted.ListFields()} & changeable
    if unknown := paths - changeable:
        raise Invalid.field("update_mask", f"{sorted(unknown)[0]} is no field of {field} that can be changed")
    changed = type(known)()
    changed.CopyFrom(known)
    for path in paths:
        changed.ClearField(path)
    taken = type(known)()
    taken.CopyFrom(wanted)
    for each in taken.DESCRIPTOR.fields:
        if each.name not in paths:
            taken.ClearField(each.name)
    changed.MergeFrom(taken)
    return changed


def definition_from_proto(message: pb.TraitDefinition, known: TraitDefinition | None = None) -> TraitDefinition:
    """Read a definition; its times are those that are known."""
    return TraitDefinition(
        name=message.name,
        description=message.description,
        type=_TYPES[message.type],
        policy=_POLICIES.get(message.policy, Policy.MOST_RECENT),
        sources=tuple(message.sources),
        pii=message.pii,
        allowed_values=tuple(message.allowed_values),
        pattern=message.pattern,
        minimum=message.minimum if message.HasField("minimum") else None,
        maximum=message.maximum if message.HasField("maximum") else None,
        enforcement=_ENFORCEMENTS[message.enforcement],
        created_us=known.created_us if known else 0,
        updated_us=known.updated_us if known else 0,
    )


def definition_to_proto(definition: TraitDefinition) -> pb.TraitDefinition:
    """Write a definition."""
    return pb.TraitDefinition(
        name=definition.name,
        description=definition.description,
        type=_number_of(_TYPES, definition.type),
        policy=_number_of(_POLICIES, definition.policy),
        sources=definition.sources,
        pii=definition.pii,
        allowed_values=definition.allowed_values,
        pattern=definition.pattern,
        minimum=definition.minimum,
        maximum=definition.maximum,
        enforcement=_number_of(_ENFORCEMENTS, definition.enforcement),
        created_time=timestamp_from_us(definition.created_us),
        updated_time=timestamp_from_us(definition.updated_us),
    )


def changing_definition(request: pb.UpdateTraitDefinitionRequest) -> Callable[[TraitDefinition], TraitDefinition]:
    """Return what a request makes of a definition."""

    def change(known: TraitDefinition) -> TraitDefinition:
        wanted = masked(definition_to_proto(known), request.trait_definition, request.update_mask, "trait_definition")
        return definition_from_proto(wanted, known)

    return change


def computed_from_proto(message: pb.ComputedTrait, known: ComputedTrait | None = None) -> ComputedTrait:
    """Read a declaration; its times are those that are known."""
    return ComputedTrait(
        name=message.name,
        aggregate=_AGGREGATES[message.aggregate],
        event_names=tuple(message.event_names),
        description=message.description,
        property_path=message.property_path,
        conditions=tuple(_condition_from_proto(condition) for condition in message.conditions),
        window_days=message.window_days,
        key_path=message.key_path,
        created_us=known.created_us if known else 0,
        updated_us=known.updated_us if known else 0,
    )


def computed_to_proto(trait: ComputedTrait) -> pb.ComputedTrait:
    """Write a declaration."""
    return pb.ComputedTrait(
        name=trait.name,
        description=trait.description,
        aggregate=_number_of(_AGGREGATES, trait.aggregate),
        event_names=trait.event_names,
        property_path=trait.property_path,
        conditions=[
            pb.Condition(
                property_path=condition.property_path,
                operator=_number_of(_OPERATORS, condition.operator),
                values=[value_to_proto(value) for value in condition.values],
            )
            for condition in trait.conditions
        ],
        window_days=trait.window_days,
        key_path=trait.key_path,
        created_time=timestamp_from_us(trait.created_us),
        updated_time=timestamp_from_us(trait.updated_us),
    )


def changing_computed(request: pb.UpdateComputedTraitRequest) -> Callable[[ComputedTrait], ComputedTrait]:
    """Return what a request makes of a declaration."""

    def change(known: ComputedTrait) -> ComputedTrait:
        wanted = masked(computed_to_proto(known), request.computed_trait, request.update_mask, "computed_trait")
        for name in ("aggregate", "event_names"):
            if not getattr(wanted, name):
                raise Invalid.field(f"computed_trait.{name}", "is required")
        return computed_from_proto(wanted, known)

    return change


def _condition_from_proto(message: pb.Condition) -> Condition:
    values = tuple(MessageToDict(value) for value in message.values)
    if any(isinstance(value, dict | list) or value is None for value in values):
        raise Invalid.field("computed_trait.conditions.values", "must be texts, numbers, true or false")
    return Condition(message.property_path, _OPERATORS[message.operator], values)


def _number_of(table: Mapping[int, object], member: object) -> Any:
    return next(number for number, known in table.items() if known is member)


def value_to_proto(value: Any) -> Value:
    """Write a JSON value."""
    struct = Struct()
    fill_struct(struct, {"value": value})
    return struct.fields["value"]


def change_to_proto(change: TraitChange) -> pb.TraitChange:
    """Write a change of a trait."""
    return pb.TraitChange(
        trait=change.trait,
        old_value=None if change.old is None else value_to_proto(change.old),
        new_value=None if change.new is None else value_to_proto(change.new),
        change_time=timestamp_from_us(change.time_us),
        source=change.source,
        message_id=change.message_id,
    )


def position_of_change(change: TraitChange) -> dict[str, Any]:
    """Write where a change stands in the list."""
    return {"time": change.time_us, "key": change.key.hex(), "trait": change.trait}


def change_position(token: Mapping[str, Any]) -> tuple[int, bytes, str] | None:
    """Read what `position_of_change` wrote; None is the beginning."""
    match token:
        case {"time": int(time_us), "key": str(key), "trait": str(trait)}:
            try:
                return in_bigint(time_us), bytes.fromhex(key), trait
            except ValueError as error:
                raise bad_token() from error
    require_empty(token)
    return None


def name_position(token: Mapping[str, Any]) -> str:
    """Read the name that a page begins after; empty is the beginning."""
    match token:
        case {"name": str(name)}:
            return name
    require_empty(token)
    return ""


def page_after(names: Sequence[str], after: str, size: int) -> tuple[list[str], bool]:
    """Return one page of sorted names after one of them, and whether there are more."""
    left = sorted(name for name in names if name > after)
    return left[:size], len(left) > size


def traits_folded(told: Mapping[bytes, Mapping[str, Any]], revision: int) -> Iterator[pb.TraitsFolded]:
    """Announce the states of traits by fragment, in messages of at most 500."""
    items = sorted(told.items())
    for start in range(0, len(items), MAX_FOLDED):
        yield pb.TraitsFolded(
            fragments=[
                pb.FragmentTraits(fragment_id=fragment, revision=revision, traits=msgspec.json.encode(traits))
                for fragment, traits in items[start : start + MAX_FOLDED]
            ]
        )


def definition_saved(definition: TraitDefinition, revision: int) -> pb.TraitDefinitionSaved:
    """Announce a definition."""
    return pb.TraitDefinitionSaved(trait_definition=definition_to_proto(definition), revision=revision)


def definition_deleted(name: str, revision: int) -> pb.TraitDefinitionDeleted:
    """Announce that a definition is gone."""
    return pb.TraitDefinitionDeleted(name=name, revision=revision)


def personal_traits_changed(names: Sequence[str], revision: int) -> pb.PersonalTraitsChanged:
    """Announce all traits that are personal."""
    return pb.PersonalTraitsChanged(names=names, revision=revision)


def computed_saved(trait: ComputedTrait) -> pb.ComputedTraitSaved:
    """Announce a declaration."""
    return pb.ComputedTraitSaved(computed_trait=computed_to_proto(trait))


def computed_deleted(name: str) -> pb.ComputedTraitDeleted:
    """Announce that a declaration is gone."""
    return pb.ComputedTraitDeleted(name=name)
