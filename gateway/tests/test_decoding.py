# SPDX-License-Identifier: Apache-2.0
"""Whatever bytes arrive, ingest answers, and what it takes can be stored by everyone downstream."""

from __future__ import annotations

import gzip
import json
import math
from typing import Any

import pytest
from chassis.incoming import repair
from chassis.incoming.times import DAY_US, event_time, read_time
from dangol.events.v1 import events_pb2 as pb
from gateway.errors import Refusal
from gateway.ingest import body
from gateway.ingest.rejection import Rejected
from gateway.ingest.verdict import MAX_DEPTH, Examiner, Taken, merge
from google.protobuf import struct_pb2
from google.protobuf.json_format import ParseDict
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from .conftest import WRITE, RunningGateway

NOW_US = 1_795_321_122_123_456
KINDS = ["identify", "track", "page", "screen", "group", "alias", "Track", "nonsense"]

texts = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["null", "u1", "\x00", "a\x00b", "\ud800", "\udc00\ud800", "🍊", "단골", " ", "x" * 600, "0"]),
)
numbers = st.one_of(
    st.integers(),
    st.integers(10**300, 10**320),
    st.floats(),
    st.sampled_from([1e308, -0.0, 5e-324, 2**63, 2**64, -(2**63)]),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
objects = st.dictionaries(texts, values, max_size=4)
members = {
    "type": st.sampled_from(KINDS) | values,
    "userId": scalars | values,
    "anonymousId": scalars,
    "messageId": scalars | values,
    "previousId": scalars,
    "groupId": scalars,
    "event": scalars | values,
    "name": scalars,
    "category": scalars,
    "timestamp": scalars | values,
    "sentAt": scalars,
    "originalTimestamp": scalars,
    "integrations": values,
}


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    """Make a good event with strange contents, and sometimes one strange member."""
    context = st.fixed_dictionaries({"traits": objects}) | objects
    event: dict[str, Any] = {
        "type": draw(st.sampled_from(KINDS)),
        "userId": "u1",
        "event": "A",
        "groupId": "g",
        "previousId": "p",
        draw(st.sampled_from(["properties", "traits"])): draw(objects),
        "context": draw(st.none() | context),
    }
    if draw(st.integers(0, 3)) == 0:
        name = draw(st.sampled_from(sorted(members)))
        event[name] = draw(members[name])
    return event


batches = st.fixed_dictionaries(
    {"batch": st.lists(events(), max_size=3) | st.lists(events() | values, max_size=3)},
    optional={"sentAt": scalars, "writeKey": scalars, "context": objects | values},
)


def encoded(value: Any) -> bytes:
    """Spell a value as careless clients do: NaN, half surrogates, escapes."""
    return json.dumps(value).encode()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Damage well-formed JSON in a few places."""
    whole = bytearray(encoded(draw(batches)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(0, len(whole) - 1)))
        whole[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=3))
    return bytes(whole)


bodies = st.one_of(batches.map(encoded), events().map(encoded), damaged(), st.binary(max_size=60), values.map(encoded))


def verdicts(sent: bytes, *, is_batch: bool = True) -> list[Taken | Rejected]:
    """Run a body through everything that the endpoint does with it; raises nothing but `Refusal`."""
    incoming = body.decode(body.inflate(sent, None, 2**20), is_batch=is_batch)
    examiner = Examiner("web", 8, 32 * 1024, NOW_US, read_time(incoming.sent_at), may_hold_nul=incoming.may_hold_nul)
    return [examiner.examine(position, raw) for position, raw in enumerate(incoming.events)]


def check_storable(text: bytes) -> None:
    """Fail when PostgreSQL's jsonb or `google.protobuf.Struct` could not hold the JSON."""
    if not text:
        return
    value = json.loads(text.decode())
    assert isinstance(value, dict)
    assert repair.depth_of(value) <= MAX_DEPTH
    _check_scalars(value)
    ParseDict(value, struct_pb2.Struct())


def _check_scalars(value: Any) -> None:
    if isinstance(value, str):
        assert "\x00" not in value
        value.encode()
    elif isinstance(value, int | float):
        assert math.isfinite(float(value))
    elif isinstance(value, list):
        for element in value:
            _check_scalars(element)
    elif isinstance(value, dict):
        for name, element in value.items():
            _check_scalars(name)
            _check_scalars(element)


def check_text(*texts: str) -> None:
    """Fail when a text column could not hold the text."""
    for text in texts:
        assert "\x00" not in text
        text.encode()


def check_refusal(refusal: Refusal) -> None:
    """Fail when an answer does not tell the client that it is its own fault, and which one."""
    assert 400 <= refusal.status < 500
    assert refusal.reason


@given(sent=bodies, is_batch=st.booleans())
@example(sent=b'{"batch": [{"type": "track", "userId": "u1", "event": "A", "messageId": 1e100}]}', is_batch=True)
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_taken_can_be_stored_by_everyone(sent: bytes, is_batch: bool) -> None:
    try:
        judged = verdicts(sent, is_batch=is_batch)
    except Refusal as refusal:
        check_refusal(refusal)
        return
    for verdict in judged:
        if isinstance(verdict, Rejected):
            check_text(verdict.message_id, verdict.reason, verdict.detail, verdict.body.decode())
            continue
        (event,) = pb.EventBatch.FromString(verdict[1]).events
        for text in (event.properties, event.traits, event.context):
            check_storable(text)
        check_text(event.user_id, event.anonymous_id, event.previous_id, event.group_id, event.name, event.category)
        assert event.user_id or event.anonymous_id
        assert 0 < len(event.message_id) <= 100
        assert len(event.name) <= 255
        assert 0 < event.time_us <= NOW_US + DAY_US


@given(sent=bodies)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_no_bytes_make_the_door_fail(shared_gateway: RunningGateway, sent: bytes) -> None:
    for path in ("/v1/batch", "/v1/track"):
        answer = await shared_gateway.http.post(path, content=sent, auth=(WRITE, ""))
        assert answer.status_code in (200, 400), answer.text
        assert {"code", "message"} <= answer.json().keys() or answer.json()["success"] is True


@given(sent=st.binary(max_size=80))
@settings(max_examples=150, deadline=None)
def test_no_bytes_make_inflating_fail(sent: bytes) -> None:
    whole = gzip.compress(sent)
    assert body.inflate(whole, b"gzip", 100) == sent
    for broken in (b"\x1f\x8b" + sent, whole[:-1], whole + b"\x1f\x8b"):
        with pytest.raises(Refusal):
            body.inflate(broken, b"gzip", 100)


@given(value=st.one_of(scalars, st.datetimes().map(str), st.datetimes().map(lambda at: at.isoformat() + "Z")))
@settings(max_examples=150, deadline=None)
def test_any_time_is_microseconds_or_nothing(value: Any) -> None:
    read = read_time(value)
    assert -(2**63) <= read < 2**63
    assert 0 < event_time(NOW_US, NOW_US, read) <= NOW_US + DAY_US


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22T04:18:42.123456Z",
        "2026-11-22T04:18:42.123456+00:00",
        "2026-11-22T13:18:42.123456+09:00",
        "2026-11-22T13:18:42.123456+0900",
        "2026-11-22 04:18:42.123456",
        "2026-11-22t04:18:42,123456z",
        "20261122T041842.123456Z",
        "1795321122.123456",
        1795321122.123456,
        1795321122123.456,
        1795321122123456,
        1795321122123456000,
        " 2026-11-22T04:18:42.123456Z ",
    ],
)
def test_one_moment_has_many_spellings(text: Any) -> None:
    assert read_time(text) == NOW_US


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        ("2015-2-02T00:30:12.984Z", "2015-02-02T00:30:12.984Z"),
        ("2015/2/2 0:30", "2015-02-02T00:30:00Z"),
        ("2015-2-2", "2015-02-02T00:00:00Z"),
        ("20150202", "2015-02-02T00:00:00Z"),
        ("Sun, 22 Nov 2026 04:18:42 +0900", "2026-11-22T04:18:42+09:00"),
        ("2026-11-22T04:18:42 -5:30", "2026-11-22T04:18:42-05:30"),
    ],
)
def test_careless_spellings_are_understood(text: str, same_as: str) -> None:
    assert read_time(text) == read_time(same_as) != 0


def test_merging_objects_keeps_the_bytes_of_their_values() -> None:
    assert merge(b'{"a": 1.50, "b": {"x":[ 1 ]}}', b'{"b": 2e0, "c":"\\uac10"}') == b'{"a":1.50,"b":2e0,"c":"\\uac10"}'
    assert merge(b"", b'{"a":1}') == merge(b'{"a":1}', b"") == b'{"a":1}'
