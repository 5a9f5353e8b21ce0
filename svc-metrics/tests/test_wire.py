# SPDX-License-Identifier: Apache-2.0
"""Between protobuf and columns."""

import json
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from chassis.errors import Invalid
from chassis.identity import FragmentId, ProfileId
from chassis.pages import encode_token
from dangol.events.v1.events_pb2 import Event, EventType
from dangol.profile.v1.identity_pb2 import FragmentMapping, FragmentsRemapped
from google.protobuf import json_format
from svc_metrics import wire
from svc_metrics.domain import EVENT_SCHEMA, Mapping

from .histories import COMPLETED, REFUNDED, Happening, batch_of, moment

AT = moment("2026-11-10T03:00:00.123456")
ANA = UUID(int=1)


def test_events_become_columns_that_lose_nothing() -> None:
    """Every value arrives as it was, money to the fourth decimal, time to the microsecond."""
    order = Happening(ANA, AT, COMPLETED, "m1", Decimal("12.3456"), "USD", "o1", properties={"상품": "신발"})
    refund = Happening(ANA, AT, REFUNDED, "m2", Decimal("99999999.99"), "KRW", "o1")
    page = Happening(ANA, AT, "page", "m3")
    table = wire.event_columns([order.event(), refund.event(), page.event()])
    assert table.schema == EVENT_SCHEMA
    rows = table.to_pylist()
    assert [row["revenue"] for row in rows] == [Decimal("12.3456"), Decimal("-99999999.99"), Decimal(0)]
    assert [row["currency"] for row in rows] == ["USD", "KRW", ""]
    assert [row["order_key"] for row in rows] == ["oo1", "", ""]
    assert [row["counted_name"] for row in rows] == [COMPLETED, REFUNDED, "page"]
    assert {row["fragment_id"] for row in rows} == {ANA.bytes}
    assert rows[0]["event_time"].microsecond == 123456
    assert json.loads(rows[0]["properties"])["상품"] == "신발"


def test_an_order_without_an_id_is_one_of_its_own() -> None:
    """Two orders without ids are two orders."""
    orders = [Happening(ANA, AT, COMPLETED, f"m{n}", Decimal(1)) for n in range(2)]
    keys = wire.event_columns([order.event() for order in orders])["order_key"].to_pylist()
    assert keys == ["em0", "em1"]


def test_identify_keeps_its_traits() -> None:
    """What the client sent with an identify is its traits."""
    event = Event(
        message_id="m", type=EventType.EVENT_TYPE_IDENTIFY, fragment_id=ANA.bytes, traits=b'{"city": "Seoul"}'
    )
    row = wire.event_columns([event]).to_pylist()[0]
    assert (row["counted_name"], row["properties"]) == ("identify", b'{"city": "Seoul"}')


@pytest.mark.parametrize(
    "event",
    [
        Event(message_id="m", type=EventType.EVENT_TYPE_TRACK, name="x"),
        Event(message_id="m", type=EventType.EVENT_TYPE_TRACK, name="x", fragment_id=b"short"),
        Event(message_id="m", fragment_id=ANA.bytes),
    ],
)
def test_an_event_that_was_not_resolved_is_refused(event: Event) -> None:
    """Such a message is buried instead of tried for ever."""
    with pytest.raises(Invalid, match="not resolved"):
        wire.events_of([batch_of([event])])


def test_the_token_of_a_batch_names_exactly_its_messages() -> None:
    """Gaps that were filled, and a stream that starts again at 1, are other batches."""
    event = Happening(ANA, AT, "page", "m").event()
    with_gap = [batch_of([event], n) for n in (5, 7, 10)]
    filled = [batch_of([event], n) for n in (5, 6, 7, 8, 9, 10)]
    made_anew = [batch_of([event], n, message_id=f"new-{n}") for n in (5, 7, 10)]
    tokens = [wire.insert_token(batch) for batch in (with_gap, filled, made_anew)]
    assert len(set(tokens)) == 3
    assert tokens[0] == wire.insert_token([batch_of([event], n) for n in (5, 7, 10)])
    assert all(token.startswith("events-5-10-") for token in tokens)


def test_only_fragments_of_other_profiles_are_learnt_from_events() -> None:
    """Each once, with every revision that was seen."""
    bora = uuid4()
    events = [
        Happening(ANA, AT, "page", "m1").event(),
        Happening(ANA, AT, "page", "m2").event(profile_id=bora, revision=3),
        Happening(ANA, AT, "page", "m3").event(profile_id=bora, revision=3),
    ]
    assert wire.mappings_of_events(events) == [Mapping(FragmentId(ANA), ProfileId(bora), 3)]
    announced = FragmentsRemapped(mappings=[FragmentMapping(fragment_id=ANA.bytes, profile_id=ANA.bytes, revision=4)])
    assert wire.mappings_of([announced]) == [Mapping(FragmentId(ANA), ProfileId(ANA), 4)]
    announced.mappings[0].profile_id = b"short"
    with pytest.raises(Invalid, match="profile_id"):
        wire.mappings_of([announced])


def test_any_json_object_can_be_shown() -> None:
    """What protobuf cannot hold is shown as text instead of breaking the whole page."""
    deep: object = "bottom"
    for _ in range(80):
        deep = [deep]
    properties = {"big": 10**400, "id": 2**60, "deep": deep, "half": "a\ud83d", "none": None, "ok": [1, 2.5, True]}
    struct = wire.struct_of({**properties, "infinite": float("inf")})
    shown = json_format.MessageToDict(type(struct).FromString(struct.SerializeToString()))
    assert shown["big"] == str(10**400)
    assert shown["id"] == str(2**60)
    assert shown["infinite"] == "inf"
    assert shown["half"] == "a\ufffd"
    assert shown["ok"] == [1, 2.5, True]
    assert shown["none"] is None


@pytest.mark.parametrize(
    "token",
    ["rubbish!", encode_token({"time": 1}), encode_token({"time": "x", "event": str(ANA)}),
     encode_token({"time": 1, "event": "x"}), encode_token({"time": 2**80, "event": str(ANA)}),
     encode_token({"time": 1, "event": 5}), encode_token({"time": [], "event": str(ANA)})],
)  # fmt: skip
def test_a_page_token_that_is_none_of_ours_is_refused(token: str) -> None:
    """And never reaches the store."""
    with pytest.raises(Invalid) as refused:
        wire.position_of(token)
    assert refused.value.violations[0].field == "page_token"


def test_no_page_token_is_the_first_page() -> None:
    """An empty token starts at the newest event."""
    assert wire.position_of("") is None
