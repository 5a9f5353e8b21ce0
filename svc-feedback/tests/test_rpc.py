# SPDX-License-Identifier: Apache-2.0
"""svc-feedback through its gRPC door."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from chassis.identity import Identifier, IdentityKey, format_profile_id
from chassis.testing import IDENTITY_KEY, Engines, RunningService, running
from dangol.feedback.v1 import feedback_pb2 as pb
from dangol.feedback.v1.feedback_pb2_grpc import FeedbackServiceStub
from dangol.profile.v1.identity_pb2 import FragmentMapping, FragmentsRemapped
from google.protobuf.timestamp_pb2 import Timestamp
from svc_feedback.app import build
from svc_feedback.settings import Settings

KEY = IdentityKey(bytes.fromhex(IDENTITY_KEY))
REVIEW: Any = "FEEDBACK_KIND_REVIEW"
NPS: Any = "FEEDBACK_KIND_NPS"
COMMENT: Any = "FEEDBACK_KIND_COMMENT"
POSITIVE: Any = pb.SentimentLabel.SENTIMENT_LABEL_POSITIVE
NEGATIVE: Any = pb.SentimentLabel.SENTIMENT_LABEL_NEGATIVE


@pytest.fixture(scope="module")
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    async with running(build, Settings, engines) as started:
        yield started


@pytest.fixture
async def stub(service: RunningService) -> Any:
    return service.stub(FeedbackServiceStub)


async def submit(stub: Any, request_id: str = "", **fields: Any) -> Any:
    feedback = pb.Feedback(**fields)
    answer = await stub.SubmitFeedback(pb.SubmitFeedbackRequest(feedback=feedback, request_id=request_id))
    return answer.feedback


@pytest.mark.parametrize(
    ("text", "language", "label"),
    [
        ("배송이 빠르고 감귤이 정말 달아요. 또 주문할게요!", "ko", POSITIVE),
        ("품질이 너무 나쁘고 환불도 안 해줘요. 최악입니다.", "ko", NEGATIVE),
        ("Great quality and fast delivery, I love it!", "en", POSITIVE),
        ("Terrible. It broke after one day, what a waste of money.", "en", NEGATIVE),
    ],
)
async def test_understands_korean_and_english(stub: Any, text: str, language: str, label: int) -> None:
    kept = await submit(stub, kind=REVIEW, rating=3, text=text)
    assert (kept.language, kept.sentiment.label) == (language, label)
    sentiment = kept.sentiment
    total = sentiment.negative_probability + sentiment.neutral_probability + sentiment.positive_probability
    assert total == pytest.approx(1)
    assert sentiment.probability > 0.5
    assert sentiment.terms
    analysed = await stub.AnalyzeText(pb.AnalyzeTextRequest(text=text))
    assert analysed.sentiment == sentiment


async def test_gives_back_what_was_kept_and_announces_it_without_its_text(service: RunningService, stub: Any) -> None:
    kept = await submit(stub, profile="user_id:ann", kind=REVIEW, rating=5, text="좋아요", item_id="sku-9")
    got = await stub.GetFeedback(pb.GetFeedbackRequest(feedback_id=kept.feedback_id))
    assert got.feedback == kept
    assert kept.profile == format_profile_id(KEY.resolve("user_id:ann"))
    await service.settled()
    announced = [m for m in await service.published(pb.FeedbackRecorded) if m.feedback_id == kept.feedback_id]
    assert [(m.rating, m.item_id, m.fragment_id) for m in announced] == [
        (5, "sku-9", KEY.fragment_id(Identifier("user_id", "ann")).bytes)
    ]
    assert "좋아요".encode() not in announced[0].SerializeToString()


async def test_a_rating_without_a_text_has_no_sentiment(stub: Any) -> None:
    kept = await submit(stub, kind=NPS, rating=0)
    assert kept.rating == 0
    assert not kept.HasField("sentiment")


async def test_the_same_request_is_kept_once(service: RunningService, stub: Any) -> None:
    first = await submit(stub, "req-1", kind=COMMENT, text="한 번만")
    again = await submit(stub, "req-1", kind=COMMENT, text="한 번만")
    assert again == first
    await service.settled()
    announced = [m.feedback_id for m in await service.published(pb.FeedbackRecorded)]
    assert announced.count(first.feedback_id) == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"text": "no kind"}, "feedback.kind: is required"),
        ({"kind": REVIEW, "rating": 6}, "feedback.rating: must be from 1 to 5 for REVIEW"),
        ({"kind": NPS, "rating": 11}, "feedback.rating: must be from 0 to 10"),
        ({"kind": COMMENT}, "feedback.text: a COMMENT needs a text"),
        ({"kind": COMMENT, "text": "x" * 10_001}, "feedback.text: has 10001 characters"),
        ({"kind": COMMENT, "text": "x", "profile": "nobody"}, "profile: must be prf_"),
    ],
)
async def test_says_what_is_wrong(stub: Any, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await submit(stub, **fields)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert words in (caught.value.details() or "")


async def test_unknown_feedback_is_not_found(stub: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetFeedback(pb.GetFeedbackRequest(feedback_id="fbk_none"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_pages_hold_everything_once_newest_first(stub: Any) -> None:
    for second in range(7):
        await submit(stub, kind=REVIEW, rating=4, item_id="paged", feedback_time=Timestamp(seconds=1000 + second // 2))
    seen: list[pb.Feedback] = []
    token = ""
    while True:
        page = await stub.ListFeedback(pb.ListFeedbackRequest(item_id="paged", page_size=3, page_token=token))
        seen += page.feedback
        token = page.next_page_token
        if not token:
            break
    assert len({f.feedback_id for f in seen}) == len(seen) == 7
    times = [f.feedback_time.seconds for f in seen]
    assert times == sorted(times, reverse=True)


async def test_lists_by_sentiment_and_kind(stub: Any) -> None:
    good = await submit(stub, kind=COMMENT, text="정말 최고예요 너무 좋아요", item_id="sorted")
    await submit(stub, kind=COMMENT, text="최악이에요 다시는 안 사요", item_id="sorted")
    await submit(stub, kind=REVIEW, rating=5, item_id="sorted")
    request = pb.ListFeedbackRequest(item_id="sorted", sentiment=POSITIVE, kind=COMMENT)
    assert [f.feedback_id for f in (await stub.ListFeedback(request)).feedback] == [good.feedback_id]


async def test_follows_a_customer_through_a_merge(service: RunningService, stub: Any) -> None:
    """Feedback given before the login is the customer's own afterwards."""
    anonymous = await submit(stub, profile="anonymous_id:b1", kind=COMMENT, text="익명")
    known = await submit(stub, profile="user_id:bob", kind=COMMENT, text="로그인")
    child, parent = KEY.resolve("anonymous_id:b1"), KEY.resolve("user_id:bob")
    # Of a fragment that did not move, svc-profile says nothing.
    mapping = FragmentMapping(fragment_id=parent.bytes, profile_id=child.bytes, revision=2)
    await service.deliver(FragmentsRemapped(mappings=[mapping]))
    for reference in ("user_id:bob", "anonymous_id:b1", known.profile):
        page = await stub.ListFeedback(pb.ListFeedbackRequest(profile=reference))
        assert {f.feedback_id for f in page.feedback} == {anonymous.feedback_id, known.feedback_id}
        assert {f.profile for f in page.feedback} == {format_profile_id(child)}


async def test_adds_up(stub: Any) -> None:
    for rating in (9, 10, 8, 3):
        await submit(stub, kind=NPS, rating=rating, item_id="sum")
    await submit(stub, kind=REVIEW, rating=5, text="아주 만족합니다", item_id="sum")
    await submit(stub, kind=REVIEW, rating=2, item_id="sum")
    summary = await stub.GetFeedbackSummary(pb.GetFeedbackSummaryRequest(item_id="sum"))
    assert (summary.count, summary.positive_count, summary.rating_count) == (6, 1, 2)
    assert (summary.rating_mean, summary.nps_count, summary.nps) == (3.5, 4, 25)
    assert summary.nps_low < 25 < summary.nps_high
    nothing = await stub.GetFeedbackSummary(pb.GetFeedbackSummaryRequest(item_id="none"))
    assert nothing.count == 0
    assert not nothing.HasField("nps")
    assert not nothing.HasField("rating_mean")


async def test_a_span_must_not_end_before_it_starts(stub: Any) -> None:
    request = pb.GetFeedbackSummaryRequest(start_time=Timestamp(seconds=5), end_time=Timestamp(seconds=5))
    with pytest.raises(grpc.aio.AioRpcError, match="end_time"):
        await stub.GetFeedbackSummary(request)
