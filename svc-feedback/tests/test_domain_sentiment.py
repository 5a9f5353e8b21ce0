# SPDX-License-Identifier: Apache-2.0
"""What the shipped model says."""

import csv
import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from svc_feedback.domain.analysis import MODEL_FILE, analyze, analyze_all, shipped_model
from svc_feedback.domain.sentiment import Label, Sentiment
from svc_feedback.domain.text import MAX_CHARACTERS

HERE = Path(__file__).parent
MODELS = HERE.parent / "svc_feedback" / "models"
ANYTHING = st.text(st.characters(exclude_categories=()), max_size=200)


def sentences(file: str) -> list[tuple[str, str, Label]]:
    """Language, text and label of each line."""
    with (HERE / file).open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(row["language"], row["text"], Label[row["label"].upper()]) for row in rows]


def judged(text: str) -> Sentiment:
    sentiment = analyze(text)[1]
    assert sentiment is not None
    return sentiment


def test_the_model_is_small() -> None:
    assert sum(file.stat().st_size for file in MODELS.iterdir()) <= 2_000_000
    assert (MODELS / MODEL_FILE).is_file()


@given(ANYTHING)
@example("\ud800")
@example("\x00")
@example("🇰🇷👨‍👩‍👧" * 50)
def test_every_text_has_an_answer_and_probabilities_sum_to_one(text: str) -> None:
    language, sentiment = analyze(text)
    assert language in {"ko", "en", "und"}
    if sentiment is not None:
        parts = (sentiment.negative, sentiment.neutral, sentiment.positive)
        assert sum(parts) == pytest.approx(1)
        assert all(0 <= part <= 1 for part in parts)
        assert sentiment.probability == max(parts) == parts[sentiment.label - 1]


@given(st.lists(st.sampled_from(["배송이", "빨라요", "I", "love", "it", "👍", "!!"]), min_size=1), st.data())
def test_the_width_of_spaces_says_nothing(words: list[str], data: st.DataObject) -> None:
    space = st.text(" \t\n\u3000", min_size=1, max_size=4)
    spaced = "".join(word + data.draw(space) for word in words)
    assert analyze(spaced) == analyze(" ".join(words))


@given(st.lists(ANYTHING, max_size=8))
def test_a_batch_says_what_each_text_says_alone(texts: list[str]) -> None:
    for together, alone in zip(analyze_all(texts), map(analyze, texts), strict=True):
        assert together[0] == alone[0]
        assert (together[1] is None) == (alone[1] is None)
        if together[1] is not None and alone[1] is not None:
            assert together[1].positive == pytest.approx(alone[1].positive)
            assert together[1].negative == pytest.approx(alone[1].negative)


@pytest.mark.parametrize(
    "text", ["", " \n ", "とても良いです", "Très bon produit, livraison rapide", "非常好", "\u200b"]
)
def test_what_cannot_be_read_has_no_sentiment(text: str) -> None:
    assert analyze(text) == ("und", None)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("👍👍", Label.POSITIVE),
        ("😍", Label.POSITIVE),
        ("❤️", Label.POSITIVE),
        ("😡", Label.NEGATIVE),
        ("👎🏽", Label.NEGATIVE),
        ("とても良いです 👍", Label.POSITIVE),
    ],
)
def test_emoji_alone_are_understood(text: str, label: Label) -> None:
    assert judged(text).label is label


def test_a_text_in_both_languages_is_understood() -> None:
    assert judged("배송 fast, quality 최고 👍").label is Label.POSITIVE
    assert judged("quality 최악, never again 환불해 주세요").label is Label.NEGATIVE


def test_a_text_beyond_the_limit_is_read_up_to_it() -> None:
    """What follows the limit changes nothing."""
    start = "배송이 정말 빨라요 " * (MAX_CHARACTERS // 11 + 1)
    assert judged(start + "최악 " * 1000) == judged(start)
    assert judged(start).label is Label.POSITIVE


def test_the_words_that_decided_are_named_as_they_were_written() -> None:
    terms = {term.text: term.weight for term in judged("Delivery was FAST but the box was terrible").terms}
    assert terms["FAST"] > 0
    assert terms["terrible"] < 0
    strongest = judged("배송이 느리고 최악입니다").terms
    assert [abs(term.weight) for term in strongest] == sorted((abs(term.weight) for term in strongest), reverse=True)
    assert any("최악" in term.text and term.weight < 0 for term in strongest)


def test_a_sentiment_survives_json() -> None:
    sentiment = judged("친절한 상담 감사합니다 👍")
    assert Sentiment.from_json(json.loads(json.dumps(sentiment.to_json(), ensure_ascii=False))) == sentiment


@pytest.mark.parametrize("language", ["ko", "en"])
def test_ordinary_shop_sentences_come_out_as_people_read_them(language: str) -> None:
    chosen = [(text, label) for spoken, text, label in sentences("shop_sentences.tsv") if spoken == language]
    wrong = [text for text, label in chosen if judged(text).label is not label]
    assert len(wrong) <= 0.05 * len(chosen), wrong


def test_indirect_shop_sentences_do_not_get_worse() -> None:
    """Written after the vocabulary of the training phrases was fixed; README.md has the exact figures."""
    polar = [(text, label) for _, text, label in sentences("unseen_shop_sentences.tsv") if label is not Label.NEUTRAL]
    right = sum((judged(text).positive > judged(text).negative) == (label is Label.POSITIVE) for text, label in polar)
    assert right / len(polar) >= 0.68


def test_the_model_names_what_it_was_trained_on() -> None:
    assert shipped_model().name == "sentiment-v1"
