# SPDX-License-Identifier: Apache-2.0
"""Between the contract and the domain."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from chassis.clock import to_timestamp
from chassis.errors import Invalid
from chassis.identity import ProfileId, format_profile_id
from dangol.events.v1 import events_pb2
from dangol.operations.v1.operations_pb2 import (
    TRACE_PHASE_RECOMMENDATIONS,
    TracedEvent,
    TracedInteraction,
    TraceStep,
)
from dangol.profile.v1 import identity_pb2
from dangol.recommend.v1 import recommend_pb2 as pb
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct, Value

from svc_recommend.domain.customers import Placement
from svc_recommend.domain.interactions import Kind, Learner
from svc_recommend.domain.items import Item, ItemId
from svc_recommend.domain.ranking import Recommendation, Similar, Slate
from svc_recommend.domain.reasons import ReasonType

_TRACK = events_pb2.EVENT_TYPE_TRACK

_REASON_TYPES = {
    ReasonType.VIEWED: pb.REASON_TYPE_BECAUSE_YOU_VIEWED,
    ReasonType.BOUGHT: pb.REASON_TYPE_BECAUSE_YOU_BOUGHT,
    ReasonType.POPULAR: pb.REASON_TYPE_POPULAR,
}


def read_events(batches: Iterable[events_pb2.EventBatch], learner: Learner) -> dict[bytes, Placement]:
    """Let the learner have the events that teach something; return the fragments that are placed elsewhere."""
    placements: dict[bytes, Placement] = {}
    for batch in batches:
        for event in batch.events:
            fragment_id = event.fragment_id
            if len(fragment_id) != 16:
                continue
            revision, profile_id = event.mapping_revision, event.profile_id
            # A fragment that never moved is its own profile; that need not be kept.
            if len(profile_id) == 16 and (revision or profile_id != fragment_id):
                _keep_newest(placements, fragment_id, profile_id, revision)
            if event.type == _TRACK and learner.heeds(name := event.name):
                learner.learn(fragment_id, name, event.properties, _time_us(event))
    return placements


def _time_us(event: events_pb2.Event) -> int:
    """Return when it happened; a clock that runs ahead must not make an item popular for years."""
    return min(event.time_us, event.received_time_us) if event.received_time_us else event.time_us


def _keep_newest(placements: dict[bytes, Placement], fragment_id: bytes, profile_id: bytes, revision: int) -> None:
    known = placements.get(fragment_id)
    if known is None or known.revision < revision:
        placements[fragment_id] = Placement(profile_id, revision)


def read_mappings(messages: Iterable[identity_pb2.FragmentsRemapped]) -> dict[bytes, Placement]:
    """Return where fragments were moved to."""
    placements: dict[bytes, Placement] = {}
    for message in messages:
        for mapping in message.mappings:
            if len(mapping.fragment_id) != 16 or len(mapping.profile_id) != 16:
                raise Invalid("a fragment's or a profile's id has not 16 bytes")
            _keep_newest(placements, mapping.fragment_id, mapping.profile_id, mapping.revision)
    return placements


def items_from_proto(items: Sequence[pb.Item]) -> list[Item]:
    """Read items that a caller wrote."""
    return [
        Item(
            item_id=ItemId(item.item_id),
            title=item.title,
            categories=tuple(item.categories),
            price=item.price,
            currency=item.currency,
            url=item.url,
            image_url=item.image_url,
            hidden=item.hidden,
            attributes=_encode(_plain(item.attributes, f"items[{position}].attributes")).decode(),
        )
        for position, item in enumerate(items)
    ]


_encode = msgspec.json.encode


def _plain(struct: Struct, path: str) -> dict[str, Any]:
    return {name: _plain_value(value, f"{path}.{name}") for name, value in struct.fields.items()}


def _plain_value(value: Value, path: str) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _plain(value.struct_value, path)
    if kind == "list_value":
        return [_plain_value(each, f"{path}[{number}]") for number, each in enumerate(value.list_value.values)]
    if kind == "number_value":
        if not math.isfinite(value.number_value):
            raise Invalid.field(path, "must be a finite number")
        return value.number_value
    return getattr(value, kind) if kind in ("string_value", "bool_value") else None


def item_to_proto(item: Item) -> pb.Item:
    """Write an item."""
    return pb.Item(
        item_id=item.item_id,
        title=item.title,
        categories=item.categories,
        price=item.price,
        currency=item.currency,
        url=item.url,
        image_url=item.image_url,
        hidden=item.hidden,
        attributes=None if item.attributes == "{}" else json_format.Parse(item.attributes, Struct()),
        updated_time=None if item.updated_time is None else to_timestamp(item.updated_time),
    )


def properties_of(event: TracedEvent) -> bytes:
    """Return what the client sent with an event, as JSON."""
    return _encode(_plain(event.properties, "properties"))


def trace_to_proto(event: TracedEvent, taught: tuple[ItemId, Kind, float]) -> TraceStep:
    """Write what an event adds to the interest in an item."""
    item_id, kind, weight = taught
    return TraceStep(
        source=event.source,
        phase=TRACE_PHASE_RECOMMENDATIONS,
        outcome="FED",
        time=event.received_time,
        detail="part of the sums that recommendations to the customer are made from",
        interaction=TracedInteraction(item_id=item_id, kind=kind.name, weight=weight),
    )


def slate_to_proto(profile_id: ProfileId, slate: Slate) -> pb.RecommendItemsResponse:
    """Write recommendations."""
    return pb.RecommendItemsResponse(
        profile_id=format_profile_id(profile_id),
        recommendations=[_recommendation_to_proto(each) for each in slate.recommendations],
        personalized=slate.personalized,
    )


def _recommendation_to_proto(recommendation: Recommendation) -> pb.Recommendation:
    item, source, reason = recommendation.item, recommendation.source, recommendation.reason
    title = source.title if source else ""
    return pb.Recommendation(
        item_id=item.item_id,
        title=item.title,
        score=recommendation.score,
        reason=pb.Reason(
            type=_REASON_TYPES[reason],
            source_item_id=source.item_id if source else "",
            text=reason.text(title),
            text_ko=reason.text_ko(title),
        ),
        price=item.price,
        currency=item.currency,
        url=item.url,
        image_url=item.image_url,
    )


def similar_to_proto(found: Iterable[Similar]) -> list[pb.SimilarItem]:
    """Write the items close to another."""
    return [
        pb.SimilarItem(
            item_id=each.item.item_id,
            title=each.item.title,
            similarity=each.similarity,
            customer_count=each.customer_count,
        )
        for each in found
    ]


def page_start(position: Mapping[str, Any]) -> ItemId:
    """Return the item after which a page starts; raises `Invalid` on a token of another list."""
    after = position.get("after", "")
    if not isinstance(after, str):
        raise Invalid.field("page_token", "must be the next_page_token of an earlier answer")
    return ItemId(after)
