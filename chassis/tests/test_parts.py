# SPDX-License-Identifier: Apache-2.0
"""The small parts: error tables, tokens, keys, page tokens, money, times, validation."""

import json
import math
import time
from decimal import Decimal
from typing import Any

import pytest
from chassis.clock import from_timestamp, from_us, timestamp_from_us, to_us
from chassis.database import lost_connection
from chassis.errors import Invalid, Unauthenticated
from chassis.events import Amount, counted_name, json_object, order_amount
from chassis.ids import new_id
from chassis.keys import Keyring, sha256
from chassis.pages import decode_token, encode_token
from chassis.rpc import STATUS_OF, Servicer, scopes_of, status_of
from chassis.tokens import TokenSigner
from chassis.validation import validate
from dangol.events.v1.events_pb2 import EventType
from dangol.feedback.v1 import feedback_pb2
from dangol.recommend.v1 import recommend_pb2
from dangol.segmentation.v1 import segmentation_pb2
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import given
from hypothesis import strategies as st

from chassis import errors

SIGNER = TokenSigner("k" * 32)


def test_every_error_has_a_status() -> None:
    """The table is keyed by exact class, so a new error must be added to it."""

    def subclasses(of: type[errors.DangolError]) -> set[type[errors.DangolError]]:
        return {of}.union(*(subclasses(c) for c in of.__subclasses__()))

    ours = {c for c in subclasses(errors.DangolError) if c.__module__ == "chassis.errors"}
    assert set(STATUS_OF) == ours


def test_an_unforeseen_error_shows_nothing_of_itself() -> None:
    status = status_of(KeyError("kim@example.com"))
    assert (status.code, status.message, list(status.details)) == (13, "internal error", [])


def test_causes_in_a_circle_are_walked_once() -> None:
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert not lost_connection(first)
    first.__context__, second.__cause__ = None, ConnectionResetError()
    assert lost_connection(first)


def test_only_absence_counts_as_a_lost_connection() -> None:
    """A missing file or a full disk would never be waited away."""
    assert [lost_connection(e) for e in (FileNotFoundError(), ConnectionRefusedError(), TimeoutError())] == [
        False, True, True,
    ]  # fmt: skip


def test_a_token_carries_caller_and_scopes() -> None:
    caller = SIGNER.verify(SIGNER.sign("web", ["profile.read", "metrics.*"]))
    assert caller.name == "web"
    assert [caller.may(s) for s in ("profile.read", "metrics.read", "profile.write")] == [True, True, False]


def test_a_token_is_refused_when_forged_or_old() -> None:
    forged = TokenSigner("x" * 32).sign("web", ["*"])
    old = SIGNER.sign("web", ["*"], lifetime_s=-1)
    for token in (forged, old, "", "a.b.c"):
        with pytest.raises(Unauthenticated):
            SIGNER.verify(token)


def test_a_verified_token_still_expires() -> None:
    """The check of the signature is remembered, the check of the time is not."""
    token = SIGNER.sign("web", ["*"], lifetime_s=0.2)
    SIGNER.verify(token)
    time.sleep(0.25)
    with pytest.raises(Unauthenticated, match="expired"):
        SIGNER.verify(token)


def test_a_short_token_key_does_not_start() -> None:
    with pytest.raises(ValueError, match="DANGOL_TOKEN_KEY"):
        TokenSigner("short")


def test_keys_are_found_by_their_hash_alone() -> None:
    settings = json.dumps(
        [
            {"id": "web", "kind": "write", "sha256": [sha256("one"), sha256("two")], "origins": ["https://a"]},
            {"id": "gone", "kind": "secret", "sha256": [sha256("three")], "expires": 1},
        ]
    )
    ring = Keyring.from_settings(settings, local=False)
    first, second = ring.find("one"), ring.find("two")
    assert first is not None
    assert first is second
    assert first.allows_origin("https://a")
    assert not first.allows_origin("https://b")
    assert [ring.find(s) for s in ("three", "dk_secret_local", sha256("one"), "")] == [None] * 4


@pytest.mark.parametrize(
    "text",
    [
        "{", "{}", '[{"id": "x"}]', '[{"id":"x","kind":"write","sha256":["a"],"key":"b"}]',
        '[{"id":"privacy","kind":"write","sha256":["a"]}]', '[{"id":"UP","kind":"write","sha256":["a"]}]',
    ],
)  # fmt: skip
def test_unusable_keys_name_their_setting(text: str) -> None:
    with pytest.raises(ValueError, match="DANGOL_API_KEYS"):
        Keyring.from_settings(text, local=False)


def test_a_page_token_reads_back_and_rubbish_is_named() -> None:
    assert decode_token(encode_token({"after": "가", "n": 3})) == {"after": "가", "n": 3}
    assert decode_token("") == {}
    for rubbish in ("!", "abc", "WzFd", "가", encode_token({"id": "\x00"}), encode_token({"id": "\ud800"})):
        with pytest.raises(Invalid, match="page_token"):
            decode_token(rubbish)


@given(st.integers(-(10**15), 4 * 10**15))
def test_microseconds_survive_every_form(microseconds: int) -> None:
    assert to_us(from_us(microseconds)) == microseconds
    assert to_us(from_timestamp(timestamp_from_us(microseconds))) == microseconds


def test_ids_have_their_prefix_and_sort_by_time() -> None:
    first = new_id("seg")
    time.sleep(0.002)
    assert first < new_id("seg")
    assert first.startswith("seg_")
    assert len(first) == 30


def amount(value: str, currency: str = "KRW", order_id: str = "") -> Amount:
    return Amount(Decimal(value), currency, order_id)


@pytest.mark.parametrize(
    ("name", "properties", "expected"),
    [
        ("Order Completed", {"revenue": 1000}, amount("1000")),
        ("Order Completed", {"revenue": "12.34", "currency": "usd"}, amount("12.34", "USD")),
        ("Order Completed", {"total": 5, "value": 9}, amount("5")),
        ("Order Completed", {"value": 9, "order_id": 7}, amount("9", order_id="7")),
        ("Order Completed", {}, amount("0")),
        ("Order Completed", {"revenue": True, "currency": "won"}, amount("0", "WON")),
        ("Order Completed", {"revenue": "much", "currency": 5}, amount("0")),
        ("Order Completed", {"revenue": -5}, amount("0")),
        ("Order Completed", {"revenue": 1e300}, amount("0")),
        ("Order Completed", {"revenue": math.nan}, amount("0")),
        ("Order Refunded", {"revenue": 300}, amount("-300")),
        ("Order Refunded", {}, None),
        ("Product Viewed", {"revenue": 300}, None),
    ],
)
def test_money_is_read_the_same_everywhere(name: str, properties: dict[str, Any], expected: Amount | None) -> None:
    assert order_amount(name, properties) == expected


def test_only_an_order_counts_as_one() -> None:
    assert amount("0").is_order
    assert not amount("-1").is_order


def test_events_are_counted_by_name_or_by_call() -> None:
    assert counted_name(EventType.EVENT_TYPE_TRACK, "Order Completed") == "Order Completed"
    assert counted_name(EventType.EVENT_TYPE_PAGE, "Home") == "page"


@pytest.mark.parametrize("data", [b"", b"[1]", b"null", b"{", b"\xff"])
def test_what_is_no_object_is_an_empty_one(data: bytes) -> None:
    assert json_object(data) == {}


def violations(message: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        validate(message)
    return {violation.field: violation.rule for violation in caught.value.violations}


def test_names_every_field_that_breaks_a_rule() -> None:
    item = recommend_pb2.Item(item_id="x" * 201, price=-1, currency="won")
    found = violations(recommend_pb2.BatchUpsertItemsRequest(items=[item]))
    assert found == {
        "items[0].item_id": "has 201 characters, at most 200 are allowed",
        "items[0].title": "is required",
        "items[0].price": "must be from 0 to inf",
        "items[0].currency": "must match [A-Z]{3}",
    }


def test_blanks_are_not_what_is_required() -> None:
    item = recommend_pb2.Item(item_id="a", title=" \t\u3000")
    assert violations(recommend_pb2.BatchUpsertItemsRequest(items=[item])) == {
        "items[0].title": "is required, and must not be blank"
    }


def test_limits_the_number_of_elements() -> None:
    items = [recommend_pb2.Item(item_id=str(n), title="t") for n in range(1001)]
    found = violations(recommend_pb2.BatchUpsertItemsRequest(items=items))
    assert found == {"items": "has 1001 elements, at most 1000 are allowed"}


def test_refuses_nan_and_unknown_enum_values() -> None:
    item = recommend_pb2.Item(item_id="a", title="t", price=math.nan)
    assert "items[0].price" in violations(recommend_pb2.BatchUpsertItemsRequest(items=[item]))
    request = feedback_pb2.SubmitFeedbackRequest(feedback=feedback_pb2.Feedback(kind=99))  # type: ignore[arg-type]
    assert violations(request) == {"feedback.kind": "99 is not a value of FeedbackKind"}


def test_empties_what_only_the_server_writes() -> None:
    segment = segmentation_pb2.Segment(segment_id="seg_x", name="vip", rule="true", member_count=5)
    request = segmentation_pb2.CreateSegmentRequest(segment=segment)
    validate(request)
    assert (request.segment.segment_id, request.segment.member_count, request.segment.name) == ("", 0, "vip")


def test_an_update_may_leave_required_fields_out_but_not_break_rules() -> None:
    segment = segmentation_pb2.Segment(segment_id="seg_x", description="d")
    request = segmentation_pb2.UpdateSegmentRequest(segment=segment, update_mask=FieldMask(paths=["description"]))
    validate(request)
    assert request.segment.segment_id == "seg_x"
    request.segment.name = "Not A Name"
    assert violations(request) == {"segment.name": "must match [a-z0-9][a-z0-9_-]*"}
    assert violations(segmentation_pb2.UpdateSegmentRequest()) == {"segment": "is required"}


def test_a_method_without_a_scope_does_not_start() -> None:
    servicer = Servicer("grpc.health.v1.Health", lambda *_: None, object())
    with pytest.raises(ValueError, match="scope"):
        scopes_of([servicer])
