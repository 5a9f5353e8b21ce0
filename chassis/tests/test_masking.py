# SPDX-License-Identifier: Apache-2.0
"""What a caller without the right to personal data sees of it."""

from typing import Any

import pytest
from chassis.masking import holds_personal_data, mask, mask_email, mask_name, mask_phone, mask_reference
from dangol.feedback.v1 import feedback_pb2
from dangol.metrics.v1 import metrics_pb2
from dangol.profile.v1 import identity_pb2
from dangol.profile.v1 import profile_pb2 as pb
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("kim@example.com", "k***@e***.com"),
        ("kim.dangol+1@shop.example.co.kr", "k***@s***.kr"),
        ("a@localhost", "a***@l***"),
        ("김@한국.한국", "김***@한***.한국"),
        ("kim@example.com&tel=01012345678", "k***@e***"),
    ],
)
def test_an_email_address_shows_where_it_begins(value: str, seen: str) -> None:
    assert mask_email(value) == seen


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("+821012345678", "+82******5678"),
        ("+12025550123", "+1******0123"),
        ("010-1234-5678", "*******5678"),
        ("1234", "***"),
        ("+999", "***"),
    ],
)
def test_a_phone_number_shows_country_and_end(value: str, seen: str) -> None:
    assert mask_phone(value) == seen


def test_a_name_shows_its_first_character() -> None:
    """However long it is: two and three syllables look alike."""
    assert [mask_name(name) for name in ("김단골", "남궁민수", "Kim Dangol")] == ["김**", "남**", "K**"]


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("email:kim@example.com", "email:k***@e***.com"),
        ("user_id:customer-0001", "user_id:customer-0001"),
        ("user_id:kim@example.com", "user_id:k***@e***.com"),
        ("user_id:01012345678", "user_id:*******5678"),
        ("loyalty:4711", "loyalty:***"),
        ("prf_01ARZ3NDEKTSV4RRFFQ69G5FAV", "prf_01ARZ3NDEKTSV4RRFFQ69G5FAV"),
    ],
)
def test_a_reference_is_masked_by_its_kind(value: str, seen: str) -> None:
    assert mask_reference(value) == seen


def customer() -> pb.Profile:
    profile = pb.Profile(
        profile_id="prf_1",
        identifiers=[
            pb.Identifier(namespace="anonymous_id", value="d-1"),
            pb.Identifier(namespace="email", value="kim@example.com"),
        ],
        event_counts={"page": 2},
    )
    profile.traits.update(
        {
            "name": "김단골",
            "first_name": "단골",
            "plan": "gold",
            "city": "Seoul",
            "age": 34,
            "address": {"street": "세종대로 1", "zip": 3000, "lines": ["a", "b"]},
            "Birth-Day": "1990-01-01",
            "note": "kim@example.com",
            "전화번호": "+821012345678",
        }
    )
    return profile


def test_a_profile_keeps_what_is_not_personal() -> None:
    """Traits are judged by name and by form, below every name; the original stays whole."""
    profile = customer()
    before = pb.Profile()
    before.CopyFrom(profile)
    assert MessageToDict(mask(profile)) == {
        "profileId": "prf_1",
        "identifiers": [
            {"namespace": "anonymous_id", "value": "d-1"},
            {"namespace": "email", "value": "k***@e***.com"},
        ],
        "eventCounts": {"page": 2},
        "traits": {
            "name": "김**",
            "first_name": "단**",
            "plan": "gold",
            "city": "Seoul",
            "age": 34.0,
            "address": {"street": "***", "zip": "***", "lines": ["***", "***"]},
            "Birth-Day": "***",
            "note": "k***@e***.com",
            "전화번호": "+82******5678",
        },
    }
    assert profile == before


def test_traits_that_a_company_calls_personal_are_masked_too() -> None:
    masked = mask(customer(), frozenset({"plan"}))
    assert masked.traits["plan"] == "***"


def test_the_keys_of_what_a_company_calls_personal_are_hidden_too() -> None:
    """They may be the names of people."""
    profile = pb.Profile()
    profile.traits.update({"children": {"김아이": {"age": 3}}, "plans": [{"김아이": 1}]})
    masked = mask(profile, frozenset({"children", "plans"}))
    assert MessageToDict(masked.traits) == {"children": "***", "plans": ["***"]}


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("연락처 010-7654-3210 / kim@naver.com 로", "연락처 *******3210 / k***@n***.com 로"),
        ("전화는 01076543210으로", "전화는 *******3210으로"),
        (
            "https://shop.example/?email=kim%40naver.com&tel=01076543210",
            "https://shop.example/?email=k***@n***.com&tel=*******3210",
        ),
        (
            "https://shop.example/?email=kim@naver.com&tel=01076543210",
            "https://shop.example/?email=k***@n***.com&tel=*******3210",
        ),
        ("Kim <kim@naver.com>, +82 10 7654 3210.", "Kim <k***@n***.com>, +82******3210."),
        ("2026-11-27T09:00:00.123456Z", "2026-11-27T09:00:00.123456Z"),
        ("2026-03-01 to 2026-04-01", "2026-03-01 to 2026-04-01"),
        ("6f9619ff-8b86-d011-b42d-012345678901", "6f9619ff-8b86-d011-b42d-012345678901"),
        ("SKU-0123456789, 30% off @home", "SKU-0123456789, 30% off @home"),
        ("제주 감귤 5kg (29,000원)", "제주 감귤 5kg (29,000원)"),
    ],
)
def test_addresses_and_numbers_are_hidden_wherever_they_stand(text: str, seen: str) -> None:
    event = metrics_pb2.ProfileEvent(message_id="m1")
    event.properties.update({"note": text})
    assert mask(metrics_pb2.ListProfileEventsResponse(events=[event])).events[0].properties["note"] == seen


def test_a_product_keeps_its_name() -> None:
    """`name` in an event is that of a thing; whom it was sent to is not."""
    event = metrics_pb2.ProfileEvent(message_id="m1")
    event.properties.update(
        {"name": "제주 감귤 5kg", "shipping_address": {"name": "김단골"}, "email": "kim@example.com"}
    )
    answer = mask(metrics_pb2.ListProfileEventsResponse(events=[event]))
    assert MessageToDict(answer.events[0].properties) == {
        "name": "제주 감귤 5kg",
        "shipping_address": {"name": "***"},
        "email": "k***@e***.com",
    }


@pytest.mark.parametrize("call", ["identify", "group"])
def test_a_customer_has_no_name_among_the_properties_of_an_event(call: str) -> None:
    """What `identify` states are traits, wherever an answer puts them."""
    event = metrics_pb2.ProfileEvent(message_id="m1", type=call)
    event.properties.update({"name": "김단골", "plan": "gold"})
    answer = mask(metrics_pb2.ListProfileEventsResponse(events=[event]))
    assert MessageToDict(answer.events[0].properties) == {"name": "김**", "plan": "gold"}


def test_what_customers_say_is_hidden_altogether() -> None:
    feedback = feedback_pb2.Feedback(
        feedback_id="fbk_1",
        profile="email:kim@example.com",
        text="배송이 늦어요",
        sentiment=feedback_pb2.Sentiment(terms=[feedback_pb2.SentimentTerm(text="늦어요", weight=-1)]),
    )
    masked = mask(feedback_pb2.ListFeedbackResponse(feedback=[feedback])).feedback[0]
    assert (masked.profile, masked.text, masked.sentiment.terms[0].text) == ("email:k***@e***.com", "***", "***")
    assert (masked.feedback_id, masked.sentiment.terms[0].weight) == ("fbk_1", -1)


def test_a_type_without_personal_data_costs_nothing() -> None:
    """The very same object goes out."""
    answer = metrics_pb2.QueryKpisResponse(currency="KRW")
    assert mask(answer) is answer
    assert not holds_personal_data(metrics_pb2.QueryKpisResponse.DESCRIPTOR)
    assert holds_personal_data(identity_pb2.ListIdentityConflictsResponse.DESCRIPTOR)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
SECRET = "김비밀-secret-value"


@given(st.sampled_from(["email", "Phone", "last_name", "address", "생년월일"]), JSON)
def test_nothing_below_a_personal_name_comes_through(name: str, other: Any) -> None:
    """Wherever it is nested."""
    profile = pb.Profile()
    profile.traits.update({"deep": [{name: {"x": [SECRET, {"y": SECRET}], "other": other}}]})
    assert SECRET not in str(MessageToDict(mask(profile), preserving_proto_field_name=True))
