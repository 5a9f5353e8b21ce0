# SPDX-License-Identifier: Apache-2.0
"""Print what the platform answers; every figure below comes from a call made just now."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, datetime
from typing import Any

from demo.api import Api
from demo.layout import columns, cut, heading
from demo.shop import ZONE

FUNNEL = ("Product Viewed", "Product Added", "Checkout Started", "Order Completed")
SPOKEN_LABELS = {"NEGATIVE": "negative", "NEUTRAL": "neutral", "POSITIVE": "positive"}
TEXT_COLUMNS = 70


def print_answers(api: Api, user_id: str, first_day: date, last_day: date, funnel: tuple[str, ...] = FUNNEL) -> None:
    """Print one customer, what customers say, the figures up to the last day and the funnel."""
    reference = f"user_id:{user_id}"
    sections = (
        ("Who is it?", f"GET /v1/profiles/{reference}", profile_lines(api, reference)),
        ("Which segments?", f"GET /v1/profiles/{reference}/segments", segment_lines(api, reference)),
        ("What to show?", f"GET /v1/profiles/{reference}/recommendations", recommendation_lines(api, reference)),
        ("What do customers say?", "GET /v1/feedback", feedback_lines(api)),
        ("How is business?", "POST /v1/kpis:query", kpi_lines(api, first_day, last_day)),
        ("Where do customers drop out?", "POST /v1/funnels:query", funnel_lines(api, funnel, first_day, last_day)),
    )
    for question, call, lines in sections:
        print(heading(f"{question}  {call}"))
        print("\n".join(lines), flush=True)


def profile_lines(api: Api, reference: str) -> list[str]:
    """Lay out a profile."""
    profile = api.get(f"/v1/profiles/{reference}")
    counts = sorted(profile.get("eventCounts", {}).items(), key=lambda item: (-item[1], item[0]))
    revenue = ", ".join(money(amount, currency) for currency, amount in profile.get("revenue", {}).items())
    identifiers = [f"{i['namespace']}:{i['value']}" for i in profile.get("identifiers", [])]
    rows = [
        ("profile", profile["profileId"]),
        *((("known as" if number == 0 else ""), name) for number, name in enumerate(identifiers)),
        ("traits", cut(json.dumps(profile.get("traits", {}), ensure_ascii=False), TEXT_COLUMNS * 2)),
        ("seen", f"{profile.get('firstSeenTime', '')[:19]} to {profile.get('lastSeenTime', '')[:19]}"),
        ("events", ", ".join(f"{name} {count:,}" for name, count in counts)),
        ("revenue", revenue or "none"),
    ]
    return columns(rows)


def segment_lines(api: Api, reference: str) -> list[str]:
    """Lay out the memberships of a customer."""
    memberships = api.get(f"/v1/profiles/{reference}/segments").get("segments", [])
    mine = {membership["name"]: membership["enteredTime"][:19] for membership in memberships}
    rows = [("segment", "customers", "this one since", "rule")]
    for segment in api.get("/v1/segments", pageSize=100).get("segments", []):
        name, members = segment["name"], f"{segment.get('memberCount', 0):,}"
        rows.append((name, members, mine.get(name, "-"), cut(segment["rule"], TEXT_COLUMNS)))
    return columns(rows, right=[1])


def recommendation_lines(api: Api, reference: str) -> list[str]:
    """Lay out recommendations with their reasons."""
    answer = api.get(f"/v1/profiles/{reference}/recommendations", pageSize=8)
    rows = [
        (
            str(number),
            cut(item.get("title") or item["itemId"], 40),
            money(item["price"], item.get("currency", "")) if item.get("price") else "",
            cut(item.get("reason", {}).get("textKo", ""), TEXT_COLUMNS),
        )
        for number, item in enumerate(answer.get("recommendations", []), start=1)
    ]
    kind = "made for this customer" if answer.get("personalized") else "the same for everybody"
    return [*columns(rows, right=[0, 2]), f"  ({kind})"]


def feedback_lines(api: Api) -> list[str]:
    """Lay out the newest feedback in each language, and the summary; without feedback, one text is analysed."""
    pieces = api.get("/v1/feedback", pageSize=200).get("feedback", [])
    if not pieces:
        return _analysis_lines(api, "배송이 빠르고 감귤이 정말 달아요")
    rows = [("said", "language", "rating", "sentiment", "because of")]
    rows += [_feedback_row(piece) for piece in _some_of_each(pieces)]
    summary = api.get("/v1/feedback:summary")
    return [*columns(rows, right=[2]), f"  {_summary_text(summary)}"]


def _some_of_each(pieces: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    seen: set[tuple[str, str]] = set()
    for piece in pieces:
        kind = (piece.get("language", ""), piece.get("sentiment", {}).get("label", ""))
        if piece.get("text") and kind not in seen:
            seen.add(kind)
            yield piece


def _feedback_row(piece: dict[str, Any]) -> tuple[str, str, str, str, str]:
    sentiment = piece.get("sentiment", {})
    terms = ", ".join(term["text"] for term in sentiment.get("terms", [])[:3])
    rating = str(piece["rating"]) if "rating" in piece else ""
    return cut(piece["text"], 56), piece.get("language", ""), rating, _sentiment(sentiment), cut(terms, 30)


def _analysis_lines(api: Api, text: str) -> list[str]:
    answer = api.post("/v1/feedback:analyze", {"text": text})
    return columns([("text", text), ("language", answer["language"]), ("sentiment", _sentiment(answer["sentiment"]))])


def _sentiment(sentiment: dict[str, Any]) -> str:
    label = SPOKEN_LABELS.get(sentiment.get("label", "").removeprefix("SENTIMENT_LABEL_"), "no text")
    return f"{label} {sentiment.get('probability', 0):.0%}"


def _summary_text(summary: dict[str, Any]) -> str:
    text = (
        f"{summary.get('count', 0):,} pieces: {summary.get('positiveCount', 0):,} positive, "
        f"{summary.get('neutralCount', 0):,} neutral, {summary.get('negativeCount', 0):,} negative"
    )
    if "ratingMean" in summary:
        text += f"; mean rating {summary['ratingMean']:.2f}"
    if "nps" in summary:
        text += f"; NPS {summary['nps']:.0f} ({summary.get('npsLow', 0):.0f} to {summary.get('npsHigh', 0):.0f})"
    return text


def kpi_lines(api: Api, first_day: date, last_day: date) -> list[str]:
    """Lay out the last days and the whole time."""
    answer = api.post("/v1/kpis:query", {"startDate": first_day.isoformat(), "endDate": last_day.isoformat()})
    currency = answer.get("currency", "")
    today = datetime.now(ZONE).date().isoformat()
    rows: list[tuple[str, ...]] = [("day", "customers", "events", "orders", "revenue", "conversion", "order value")]
    for day in answer.get("days", [])[-4:]:
        rows.append(_kpi_row(f"today, {day['date']}" if day["date"] == today else day["date"], day, currency))
    rows.append(_kpi_row(f"since {first_day}", answer.get("total", {}), currency))
    return columns(rows, right=range(1, 7))


def _kpi_row(label: str, kpis: dict[str, Any], currency: str) -> tuple[str, ...]:
    return (
        label,
        f"{kpis.get('activeCustomers', 0):,}",
        f"{kpis.get('events', 0):,}",
        f"{kpis.get('orders', 0):,}",
        money(kpis.get("revenue", 0), currency),
        f"{kpis['conversion']:.1%}" if "conversion" in kpis else "-",
        money(kpis["averageOrderValue"], currency) if "averageOrderValue" in kpis else "-",
    )


def funnel_lines(api: Api, steps: tuple[str, ...], first_day: date, last_day: date) -> list[str]:
    """Lay out a funnel with bars."""
    body = {
        "steps": [{"event": step} for step in steps],
        "startDate": first_day.isoformat(),
        "endDate": last_day.isoformat(),
    }
    results = api.post("/v1/funnels:query", body).get("steps", [])
    rows = [
        (
            step["event"],
            f"{step.get('customers', 0):,}",
            f"{step['stepConversion']:.1%}" if "stepConversion" in step else "",
            "█" * round(40 * step.get("totalConversion", 0)),
        )
        for step in results
    ]
    return columns(rows, right=[1, 2])


def money(amount: float, currency: str) -> str:
    """Write an amount the way people read it."""
    return f"₩{amount:,.0f}" if currency == "KRW" else f"{currency} {amount:,.2f}".strip()
