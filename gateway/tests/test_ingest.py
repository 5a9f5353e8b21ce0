# SPDX-License-Identifier: Apache-2.0
"""Events over HTTP, as raw users and clients of Segment send them."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from base64 import b64encode
from typing import Any

import pytest
from chassis.clock import to_us
from dangol.events.v1 import events_pb2 as pb

from .conftest import KEYS, SECRET, WRITE, RunningGateway, running_gateway


def track(number: int = 1, **members: Any) -> dict[str, Any]:
    """Return an event as a server's client sends it."""
    return {
        "type": "track",
        "event": "Order Completed",
        "userId": f"u{number}",
        "messageId": f"m{number}",
        "properties": {"revenue": 12900.5},
        **members,
    }


async def accepted(gateway: RunningGateway, event: dict[str, Any], path: str = "/v1/batch") -> pb.Event:
    """Send one event and return it as it was stored."""
    body = {"batch": [event]} if path == "/v1/batch" else event
    answer = await gateway.post(path, body)
    assert answer.json() == {"success": True, "accepted": 1, "rejected": 0, "errors": []}
    (stored,) = await gateway.collected()
    return stored


async def rejection(gateway: RunningGateway, event: Any, *, key: str = WRITE) -> tuple[str, str]:
    """Send one bad event between two good ones and return the verdict."""
    answer = await gateway.post("/v1/batch", {"batch": [track(1), event, track(2)]}, key=key)
    assert answer.status_code == 200
    verdict = answer.json()
    assert (verdict["accepted"], verdict["rejected"]) == (2, 1)
    (error,) = verdict["errors"]
    (kept,) = await gateway.rejected()
    assert (kept.position, kept.reason, kept.detail) == (1, error["reason"], error["detail"])
    assert len(await gateway.collected()) == 2
    return error["reason"], error["detail"]


class TestTaking:
    """What becomes of good events."""

    @pytest.mark.parametrize(
        ("path", "event_type"),
        [
            ("/v1/identify", pb.EVENT_TYPE_IDENTIFY),
            ("/v1/i", pb.EVENT_TYPE_IDENTIFY),
            ("/v1/track", pb.EVENT_TYPE_TRACK),
            ("/v1/track/", pb.EVENT_TYPE_TRACK),
            ("/v1/t", pb.EVENT_TYPE_TRACK),
            ("/v1/page", pb.EVENT_TYPE_PAGE),
            ("/v1/p", pb.EVENT_TYPE_PAGE),
            ("/v1/screen", pb.EVENT_TYPE_SCREEN),
            ("/v1/s/", pb.EVENT_TYPE_SCREEN),
            ("/v1/group", pb.EVENT_TYPE_GROUP),
            ("/v1/g", pb.EVENT_TYPE_GROUP),
            ("/v1/alias", pb.EVENT_TYPE_ALIAS),
            ("/v1/a", pb.EVENT_TYPE_ALIAS),
        ],
    )
    async def test_each_path_takes_its_kind_of_event(self, gateway: RunningGateway, path: str, event_type: int) -> None:
        event = {"userId": "u1", "event": "Viewed", "groupId": "g1", "previousId": "a1"}
        assert (await accepted(gateway, event, path)).type == event_type

    @pytest.mark.parametrize("path", ["/v1/batch", "/v1/batch/", "/v1/import", "/v1/import/", "/v1/b", "/v1/b/"])
    async def test_each_batch_path_takes_all_six_kinds(self, gateway: RunningGateway, path: str) -> None:
        kinds = ("identify", "track", "page", "screen", "group", "alias")
        events = [{"type": kind, "userId": "u1", "event": "A", "groupId": "g", "previousId": "a"} for kind in kinds]
        answer = await gateway.post(path, {"batch": events})
        assert answer.json()["accepted"] == 6
        assert {event.type for event in await gateway.collected()} == set(range(1, 7))

    async def test_the_bytes_of_properties_go_through_untouched(self, gateway: RunningGateway) -> None:
        body = '{"batch":[{"type":"track","event":"가입","userId":"u","properties":{"b": 1.50, "a":"\\uac10귤🍊"}}]}'
        await gateway.post("/v1/batch", body.encode())
        (event,) = await gateway.collected()
        assert event.properties.decode() == '{"b": 1.50, "a":"\\uac10귤🍊"}'
        assert event.name == "가입"

    async def test_the_source_is_the_id_of_the_key_and_never_the_key(self, gateway: RunningGateway) -> None:
        assert (await accepted(gateway, track())).source == "local-write"

    async def test_a_message_carries_what_the_contract_promises(self, gateway: RunningGateway) -> None:
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        await gateway.post("/v1/batch", {"batch": [track()]}, headers={"traceparent": trace})
        (message,) = await gateway.messages("events.collected.*")
        assert message.headers["ce-type"] == "dangol.events.v1.EventBatch"
        assert message.headers["ce-source"] == "dangol/gateway"
        assert message.headers["ce-id"] == message.headers["Nats-Msg-Id"]
        assert message.headers["ce-time"]
        assert message.headers["traceparent"].startswith("00-4bf92f3577b34da6a3ce929d0e0e4736-")

    async def test_all_events_of_a_customer_take_the_same_shard(self, gateway: RunningGateway) -> None:
        events = [track(number % 10, messageId=f"m{number}") for number in range(200)]
        await gateway.post("/v1/batch", {"batch": events})
        subjects: dict[str, set[str]] = {}
        for message in await gateway.messages("events.collected.*"):
            for event in pb.EventBatch.FromString(message.data).events:
                subjects.setdefault(event.user_id, set()).add(message.subject)
        assert len(subjects) == 10
        assert all(len(shards) == 1 for shards in subjects.values())
        assert len({next(iter(shards)) for shards in subjects.values()}) > 1

    async def test_no_message_holds_more_than_500_events_or_a_mebibyte(self, gateway: RunningGateway) -> None:
        many = [track(1, messageId=f"m{number}") for number in range(1200)]
        large = [track(2, messageId=f"l{number}", properties={"x": "y" * 30_000}) for number in range(100)]
        assert (await gateway.post("/v1/batch", {"batch": many})).json()["accepted"] == 1200
        assert (await gateway.post("/v1/batch", {"batch": large})).json()["accepted"] == 100
        messages = await gateway.messages("events.collected.*")
        sizes = [len(pb.EventBatch.FromString(message.data).events) for message in messages]
        assert sum(sizes) == 1300
        assert max(sizes) == 500
        assert max(len(message.data) for message in messages) < 2**20

    async def test_concurrent_small_requests_share_messages(self, gateway: RunningGateway) -> None:
        answers = await asyncio.gather(*(gateway.post("/v1/track", track(number)) for number in range(100)))
        assert {answer.status_code for answer in answers} == {200}
        assert len(await gateway.collected()) == 100
        assert len(await gateway.batches()) < 100

    async def test_an_empty_batch_is_a_success(self, gateway: RunningGateway) -> None:
        answer = await gateway.post("/v1/batch", {"batch": []})
        assert answer.status_code == 200
        assert await gateway.batches() == []

    async def test_unknown_members_and_nulls_are_no_reason_to_refuse(self, gateway: RunningGateway) -> None:
        event = track(
            anonymousId=None,
            name=None,
            category=None,
            traits=None,
            context=None,
            _metadata={"x": [1]},
            channel="server",
        )
        stored = await accepted(gateway, event)
        assert (stored.user_id, stored.anonymous_id, stored.context) == ("u1", "", b"")

    async def test_php_writes_empty_objects_as_arrays(self, gateway: RunningGateway) -> None:
        stored = await accepted(gateway, track(properties=[], context=[]))
        assert (stored.properties, stored.context) == (b"", b"")

    async def test_a_body_is_understood_whatever_its_content_type(self, gateway: RunningGateway) -> None:
        answer = await gateway.post("/v1/t", track(), headers={"content-type": "text/plain"})
        assert answer.json()["accepted"] == 1

    @pytest.mark.parametrize("headers", [{"content-encoding": "gzip"}, {}], ids=["announced", "unannounced"])
    async def test_gzip_is_inflated(self, gateway: RunningGateway, headers: dict[str, str]) -> None:
        body = gzip.compress(json.dumps({"batch": [track()]}).encode())
        assert (await gateway.post("/v1/batch", body, headers=headers)).json()["accepted"] == 1

    async def test_gzip_in_several_members_is_inflated(self, gateway: RunningGateway) -> None:
        text = json.dumps({"batch": [track()]}).encode()
        body = gzip.compress(text[:20]) + gzip.compress(text[20:])
        answer = await gateway.post("/v1/batch", body, headers={"content-encoding": "gzip"})
        assert answer.json()["accepted"] == 1


class TestIds:
    """Who an event is about."""

    @pytest.mark.parametrize(
        ("given", "stored"), [(42, "42"), (42.0, "42"), (4.5, "4.5"), (-7, "-7"), ("  u1 ", "u1"), ("단골🍊", "단골🍊")]
    )
    async def test_ids_become_trimmed_text(self, gateway: RunningGateway, given: Any, stored: str) -> None:
        assert (await accepted(gateway, track(userId=given))).user_id == stored

    @pytest.mark.parametrize("junk", ["", "  ", "null", "undefined", "[object Object]", "0", 0, -1, "N/A"])
    async def test_a_junk_id_is_dropped_when_another_one_is_left(self, gateway: RunningGateway, junk: Any) -> None:
        stored = await accepted(gateway, track(userId=junk, anonymousId="a-1"))
        assert (stored.user_id, stored.anonymous_id) == ("", "a-1")

    async def test_an_event_with_junk_ids_alone_is_rejected(self, gateway: RunningGateway) -> None:
        assert (await rejection(gateway, track(userId="null", anonymousId="undefined")))[0] == "JUNK_ID"

    async def test_an_event_of_nobody_is_rejected(self, gateway: RunningGateway) -> None:
        reason, detail = await rejection(gateway, track(userId=None))
        assert reason == "ID_MISSING"
        assert "userId" in detail

    async def test_a_group_id_alone_names_nobody(self, gateway: RunningGateway) -> None:
        event = {"type": "group", "groupId": "g1", "messageId": "m"}
        assert (await rejection(gateway, event))[0] == "ID_MISSING"

    async def test_a_message_id_is_given_to_an_event_without_one(self, gateway: RunningGateway) -> None:
        await gateway.post("/v1/batch", {"batch": [track(messageId=None), track(messageId=""), track(messageId=7)]})
        ids = [event.message_id for event in await gateway.collected()]
        assert len(set(ids)) == 3
        assert "7" in ids
        assert sum(message_id.startswith("dangol-") for message_id in ids) == 2

    @pytest.mark.parametrize(
        ("event", "reason"),
        [
            ({"type": "group", "userId": "u"}, "GROUP_ID_MISSING"),
            ({"type": "alias", "userId": "u"}, "PREVIOUS_ID_MISSING"),
            ({"type": "alias", "anonymousId": "a", "previousId": "p"}, "USER_ID_MISSING"),
            ({"type": "track", "userId": "u"}, "EVENT_NAME_MISSING"),
            ({"type": "track", "userId": "u", "event": " "}, "EVENT_NAME_MISSING"),
            ({"type": "trick", "userId": "u"}, "UNKNOWN_TYPE"),
            ({"userId": "u"}, "TYPE_MISSING"),
            (7, "WRONG_TYPE"),
            (None, "WRONG_TYPE"),
            (track(userId=True), "WRONG_TYPE"),
            (track(userId={"a": 1}), "WRONG_TYPE"),
            (track(properties="text"), "WRONG_TYPE"),
            (track(properties=[1]), "WRONG_TYPE"),
            (track(context=3), "WRONG_TYPE"),
            (track(userId="u" * 513), "TOO_LONG"),
            (track(messageId="m" * 101), "TOO_LONG"),
            (track(event="e" * 256), "TOO_LONG"),
            (track(userId=10**30), "WRONG_TYPE"),
            (track(messageId=1e100), "WRONG_TYPE"),
            (track(event=-1e300), "WRONG_TYPE"),
        ],
    )
    async def test_a_bad_event_costs_only_itself(self, gateway: RunningGateway, event: Any, reason: str) -> None:
        assert (await rejection(gateway, event))[0] == reason

    async def test_a_wrong_type_is_named_with_its_field(self, gateway: RunningGateway) -> None:
        assert "$.userId" in (await rejection(gateway, track(userId=[1])))[1]


class TestTraitsAndContext:
    """Where Segment and RudderStack put traits and context."""

    async def test_root_traits_win_over_those_of_the_context(self, gateway: RunningGateway) -> None:
        event = {
            "type": "identify",
            "userId": "u",
            "traits": {"city": "Seoul", "age": 31},
            "context": {"traits": {"city": "Busan", "name": "김"}, "locale": "ko"},
        }
        stored = await accepted(gateway, event)
        assert json.loads(stored.traits) == {"city": "Seoul", "age": 31, "name": "김"}
        assert json.loads(stored.context)["locale"] == "ko"

    async def test_rudderstack_sends_traits_in_the_context_alone(self, gateway: RunningGateway) -> None:
        event = {"type": "identify", "userId": "u", "context": {"traits": {"city": "Busan"}}}
        assert json.loads((await accepted(gateway, event)).traits) == {"city": "Busan"}

    async def test_the_context_of_a_batch_belongs_to_every_event_of_it(self, gateway: RunningGateway) -> None:
        batch = [track(1), track(2, context={"ip": "2.2.2.2"}), track(3)]
        await gateway.post("/v1/batch", {"batch": batch, "context": {"ip": "1.1.1.1", "os": "ios"}})
        contexts = {event.user_id: json.loads(event.context) for event in await gateway.collected()}
        assert contexts["u1"] == contexts["u3"] == {"ip": "1.1.1.1", "os": "ios"}
        assert contexts["u2"] == {"ip": "2.2.2.2", "os": "ios"}


class TestTimes:
    """When an event happened, whatever the client's clock says."""

    async def test_the_error_of_the_clients_clock_is_taken_out(self, gateway: RunningGateway) -> None:
        event = track(timestamp="2020-01-01T00:00:00Z")
        await gateway.post("/v1/batch", {"batch": [event], "sentAt": "2020-01-01T00:00:10Z"})
        (stored,) = await gateway.collected()
        assert stored.sent_time_us - stored.original_time_us == 10_000_000
        assert stored.time_us == stored.received_time_us - 10_000_000

    async def test_a_time_without_sent_at_is_believed(self, gateway: RunningGateway) -> None:
        stored = await accepted(gateway, track(timestamp="2026-01-02T03:04:05.678Z"))
        assert stored.time_us == stored.original_time_us == 1767323045678000
        assert stored.sent_time_us == 0

    async def test_events_without_a_time_keep_the_order_of_their_batch(self, gateway: RunningGateway) -> None:
        await gateway.post("/v1/batch", {"batch": [track(event=name) for name in "abc"]})
        stored = sorted(await gateway.collected(), key=lambda event: event.time_us)
        assert [event.name for event in stored] == ["a", "b", "c"]
        assert [event.time_us - event.received_time_us for event in stored] == [0, 1, 2]

    @pytest.mark.parametrize("bad", ["yesterday", {}, [1], True, "", "2026-13-45", None, "9" * 5000])
    async def test_a_bad_time_costs_nothing(self, gateway: RunningGateway, bad: Any) -> None:
        stored = await accepted(gateway, track(timestamp=bad))
        assert stored.time_us == stored.received_time_us
        assert stored.original_time_us == 0

    @pytest.mark.parametrize("far", ["2199-01-01T00:00:00Z", "1815-06-18T00:00:00Z"])
    async def test_an_impossible_time_becomes_now_and_is_kept_beside(self, gateway: RunningGateway, far: str) -> None:
        stored = await accepted(gateway, track(timestamp=far))
        assert stored.time_us == stored.received_time_us
        assert stored.original_time_us != 0


class TestLimits:
    """What is too large."""

    async def test_an_event_above_32_kib_is_rejected_and_its_beginning_kept(self, gateway: RunningGateway) -> None:
        reason, detail = await rejection(gateway, track(properties={"x": "y" * 33_000}))
        assert reason == "EVENT_TOO_LARGE"
        assert "32768" in detail
        (kept,) = await gateway.rejected()
        assert len(kept.body) == 4096
        assert kept.message_id == "m1"

    async def test_an_event_of_exactly_32_kib_is_taken(self, gateway: RunningGateway) -> None:
        padding = 32 * 1024 - len(json.dumps(track(properties={"x": ""})))
        event = json.dumps(track(properties={"x": "y" * padding}))
        assert len(event) == 32 * 1024
        answer = await gateway.post("/v1/batch", b'{"batch":[' + event.encode() + b"]}")
        assert answer.json()["accepted"] == 1

    async def test_a_key_may_allow_larger_events(self, gateway: RunningGateway) -> None:
        answer = await gateway.post("/v1/track", track(properties={"x": "y" * 800_000}), key="big-key")
        assert answer.json()["accepted"] == 1

    async def test_an_event_that_no_message_can_hold_is_rejected(self, gateway: RunningGateway) -> None:
        event = {"userId": "u", "context": {"traits": {"x": "y" * 600_000}}}
        answer = await gateway.post("/v1/identify", event, key="big-key")
        assert answer.json()["errors"][0]["reason"] == "EVENT_TOO_LARGE"

    async def test_events_after_the_2500th_are_rejected(self, gateway: RunningGateway) -> None:
        answer = await gateway.post("/v1/batch", {"batch": [track(number) for number in range(2501)]})
        assert answer.status_code == 200
        assert (answer.json()["accepted"], answer.json()["rejected"]) == (2500, 1)
        assert answer.json()["errors"][0] == {
            "position": 2500,
            "messageId": "m2500",
            "reason": "BATCH_TOO_LONG",
            "detail": "a batch may hold at most 2500 events",
        }
        assert len(await gateway.collected()) == 2500

    @pytest.mark.parametrize("announced", [True, False])
    async def test_a_body_above_the_limit_is_refused_unread(self, gateway: RunningGateway, announced: bool) -> None:
        async def chunks() -> Any:
            for _ in range(80):
                yield b"x" * 65536

        content = b"x" * 5_000_000 if announced else chunks()
        answer = await gateway.http.post("/v1/batch", content=content, auth=(WRITE, ""))
        assert answer.status_code == 413
        assert answer.json()["code"] == "BODY_TOO_LARGE"

    async def test_a_zip_bomb_is_refused_at_the_limit(self, gateway: RunningGateway) -> None:
        deflater = zlib.compressobj(9, wbits=31)
        bomb = b"".join(deflater.compress(bytes(2**20)) for _ in range(100)) + deflater.flush()
        assert len(bomb) < 200_000
        answer = await gateway.post("/v1/batch", bomb, headers={"content-encoding": "gzip"})
        assert answer.status_code == 413
        assert answer.json()["code"] == "BODY_TOO_LARGE"

    async def test_millions_of_tiny_members_are_refused(self, gateway: RunningGateway) -> None:
        answer = await gateway.post("/v1/batch", b'{"batch":[' + b"0," * 1_000_000 + b"0]}")
        assert answer.status_code == 413


class TestBadBodies:
    """What nobody can read, and what no store could hold."""

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b"", "INVALID_JSON"),
            (b"{", "INVALID_JSON"),
            (b'{"batch":[{"a":}]}', "INVALID_JSON"),
            (b'{"batch":[]} trailing', "INVALID_JSON"),
            (b"[]", "WRONG_TYPE"),
            (b'"text"', "WRONG_TYPE"),
            (b"{}", "WRONG_TYPE"),
            (b'{"batch":{}}', "WRONG_TYPE"),
            (b'{"batch":null}', "WRONG_TYPE"),
            (b'{"batch":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "NESTED_TOO_DEEP"),
            (b"\xff\xfe{", "INVALID_JSON"),
        ],
    )
    async def test_an_unreadable_body_is_answered_with_code_and_message(
        self, gateway: RunningGateway, body: bytes, code: str
    ) -> None:
        answer = await gateway.post("/v1/batch", body)
        assert answer.status_code == 400
        assert answer.json()["code"] == code
        assert answer.json()["message"]

    async def test_broken_gzip_is_refused(self, gateway: RunningGateway) -> None:
        whole = gzip.compress(b'{"batch":[]}' * 100)
        for body in (b"not gzip", whole[:-9], whole[:20] + b"\x00" * 20):
            answer = await gateway.post("/v1/batch", body, headers={"content-encoding": "gzip"})
            assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_GZIP")

    async def test_an_unknown_encoding_is_refused(self, gateway: RunningGateway) -> None:
        answer = await gateway.post("/v1/batch", b"{}", headers={"content-encoding": "br"})
        assert (answer.status_code, answer.json()["code"]) == (415, "UNSUPPORTED_ENCODING")

    @pytest.mark.parametrize(
        ("properties", "stored"),
        [
            (rb'{"a":"x\u0000y"}', {"a": "x\ufffdy"}),
            (rb'{"\u0000":1}', {"\ufffd": 1}),
            (rb'{"a":"\ud800"}', {"a": "\ufffd"}),
            (rb'{"a":"\ud83d\ude00"}', {"a": "😀"}),
            (rb'{"a":"\udc00x"}', {"a": "\ufffdx"}),
            (b'{"a":NaN,"b":[-Infinity]}', {"a": None, "b": [None]}),
            (rb'{"a":"\\u0000"}', {"a": "\\u0000"}),
        ],
    )
    async def test_what_no_store_can_hold_is_repaired(
        self, gateway: RunningGateway, properties: bytes, stored: dict[str, Any]
    ) -> None:
        head = b'{"batch":[{"type":"track","event":"A","userId":"u","properties":'
        answer = await gateway.post("/v1/batch", head + properties + b"}]}")
        assert answer.json()["accepted"] == 1
        (event,) = await gateway.collected()
        assert json.loads(event.properties) == stored

    @pytest.mark.parametrize(
        ("member", "reason"),
        [
            (b'"properties":{"a":1e999}', "NUMBER_OUT_OF_RANGE"),
            (b'"properties":{"a":1e-20000}', "NUMBER_OUT_OF_RANGE"),
            (b'"properties":{"a":' + b"9" * 400 + b"}", "NUMBER_OUT_OF_RANGE"),
            (b'"properties":{"a":' + b"9" * 5000 + b"}", "NUMBER_OUT_OF_RANGE"),
            (b'"properties":{"a":' * 30 + b"1" + b"}" * 30, "NESTED_TOO_DEEP"),
            (b'"properties":{"a":' + b"[" * 500 + b"]" * 500 + b"}", "NESTED_TOO_DEEP"),
            (b'"properties":{"a":"\xff"}', "INVALID_UTF8"),
            (b'"properties":{"\xff":1}', "INVALID_UTF8"),
            (b'"name":"\xff"', "INVALID_UTF8"),
        ],
    )
    async def test_what_cannot_be_repaired_costs_only_its_event(
        self, gateway: RunningGateway, member: bytes, reason: str
    ) -> None:
        if member.count(b'"properties"') > 1:
            member = b'"properties":' + b'{"a":' * 30 + b"1" + b"}" * 30
        bad = b'{"type":"track","event":"A","userId":"u",' + member + b"}"
        good = json.dumps(track()).encode()
        answer = await gateway.post("/v1/batch", b'{"batch":[' + good + b"," + bad + b"]}")
        assert answer.json()["accepted"] == 1
        assert answer.json()["errors"][0]["reason"] == reason
        (kept,) = await gateway.rejected()
        assert b"\x00" not in kept.body
        assert kept.body.decode()

    async def test_of_repeated_members_the_last_one_counts(self, gateway: RunningGateway) -> None:
        body = b'{"batch":[{"type":"page","type":"track","event":"A","event":"B","userId":"u"}]}'
        assert (await gateway.post("/v1/batch", body)).json()["accepted"] == 1
        (event,) = await gateway.collected()
        assert event.name == "B"

    async def test_a_byte_order_mark_is_skipped(self, gateway: RunningGateway) -> None:
        body = b"\xef\xbb\xbf" + json.dumps({"batch": [track()]}).encode()
        assert (await gateway.post("/v1/batch", body)).json()["accepted"] == 1


class TestKeys:
    """Every way of authenticating, and what each key may do."""

    @pytest.mark.parametrize(
        "headers",
        [
            {"authorization": "Basic " + b64encode(b"dk_write_local:").decode()},
            {"authorization": "Basic " + b64encode(b"dk_write_local").decode()},
            {"authorization": "basic " + b64encode(b"dk_write_local:ignored").decode()},
            {"authorization": "Bearer dk_write_local"},
            {"x-api-key": "dk_write_local"},
            {"authorization": "Bearer dk_secret_local"},
            {"authorization": "Bearer importer-key"},
        ],
    )
    async def test_a_key_in_a_header_is_accepted(self, gateway: RunningGateway, headers: dict[str, str]) -> None:
        answer = await gateway.post("/v1/track", track(), key=None, headers=headers)
        assert answer.status_code == 200

    @pytest.mark.parametrize(
        "headers", [{}, {"authorization": "Bearer somebody-elses-token"}, {"authorization": "Basic Og=="}]
    )
    async def test_a_write_key_in_the_body_is_accepted(self, gateway: RunningGateway, headers: dict[str, str]) -> None:
        for path, body in (("/v1/track", track(writeKey=WRITE)), ("/v1/batch", {"batch": [], "writeKey": WRITE})):
            assert (await gateway.post(path, body, key=None, headers=headers)).status_code == 200

    async def test_the_header_wins_over_the_body(self, gateway: RunningGateway) -> None:
        answer = await gateway.post("/v1/track", track(writeKey=WRITE), key="unknown")
        assert answer.status_code == 401

    @pytest.mark.parametrize("key", [None, "unknown", "old-key", "키"])
    async def test_an_unknown_or_expired_key_is_401(self, gateway: RunningGateway, key: str | None) -> None:
        body = track(writeKey=key) if key == "키" else track()
        answer = await gateway.post("/v1/track", body, key=None if key == "키" else key)
        assert answer.status_code == 401
        assert answer.json()["code"] == "UNKNOWN_KEY"

    async def test_a_secret_key_without_the_scope_is_403(self, gateway: RunningGateway) -> None:
        answer = await gateway.post("/v1/track", track(), key="reader-key")
        assert (answer.status_code, answer.json()["code"]) == (403, "SCOPE_MISSING")

    async def test_a_write_key_belongs_to_its_origins(self, gateway: RunningGateway) -> None:
        for origin, status in (("https://shop.example", 200), ("https://evil.example", 403)):
            answer = await gateway.post("/v1/t", track(), key="shop-key", headers={"origin": origin})
            assert answer.status_code == status

    async def test_too_many_requests_are_answered_with_429(self, gateway: RunningGateway) -> None:
        first = await gateway.post("/v1/track", track(), key="slow-key")
        second = await gateway.post("/v1/track", track(), key="slow-key")
        assert first.status_code == 200
        assert first.headers["ratelimit-policy"] == '"requests";q=1;w=250'
        assert first.headers["ratelimit"] == '"requests";r=0;t=250'
        assert second.status_code == 429
        assert 200 <= int(second.headers["retry-after"]) <= 250
        assert second.headers["x-ratelimit-reset"] == second.headers["retry-after"]
        assert second.json()["code"] == "RATE_LIMITED"

    async def test_a_batch_above_the_event_rate_makes_the_next_one_wait(self, gateway: RunningGateway) -> None:
        batch = {"batch": [track(number) for number in range(100)]}
        assert (await gateway.post("/v1/batch", batch, key="few-key")).json()["accepted"] == 100
        waiting = await gateway.post("/v1/batch", batch, key="few-key")
        assert waiting.status_code == 429
        assert 1 <= int(waiting.headers["retry-after"]) <= 11

    def test_no_key_is_kept_in_the_clear(self) -> None:
        assert all("key" not in digest for key in KEYS for digest in key["sha256"])


class TestHttp:
    """Paths, methods, browsers."""

    @pytest.mark.parametrize("path", ["/v1/batch", "/v1/t/", "/v1/projects/dk_write_local/settings"])
    async def test_other_methods_are_405_with_code_and_message(self, gateway: RunningGateway, path: str) -> None:
        answer = await gateway.http.put(path)
        assert answer.status_code == 405
        assert "allow" in answer.headers
        assert answer.json()["code"] == "METHOD_NOT_ALLOWED"

    @pytest.mark.parametrize("path", ["/v1/t", "/v1/batch", "/v1/projects/dk_write_local/settings"])
    async def test_a_browser_may_ask_beforehand(self, gateway: RunningGateway, path: str) -> None:
        answer = await gateway.http.options(
            path, headers={"origin": "https://shop.example", "access-control-request-method": "POST"}
        )
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        allowed = answer.headers["access-control-allow-headers"]
        assert all(name in allowed for name in ("authorization", "content-type", "x-retry-count"))

    async def test_a_page_gets_no_leave_where_no_key_is_open_to_it(self, nats_url: str) -> None:
        closed = json.dumps([key for key in KEYS if key["id"] == "shop"])
        async with running_gateway(nats_url, is_ready=False, local=False, api_keys=closed) as gateway:
            answer = await gateway.http.options("/v1/t", headers={"origin": "https://evil.example"})
            assert answer.status_code == 204
            assert "access-control-allow-origin" not in answer.headers
            assert answer.headers["vary"] == "origin"

    async def test_the_answer_may_be_read_by_the_page_also_when_it_is_an_error(self, gateway: RunningGateway) -> None:
        headers = {"origin": "https://shop.example"}
        for key in (WRITE, "unknown"):
            answer = await gateway.post("/v1/t", track(), key=key, headers=headers)
            assert answer.headers["access-control-allow-origin"] == "https://shop.example"

    async def test_the_browser_client_learns_where_to_send(self, gateway: RunningGateway) -> None:
        answer = await gateway.http.get(f"/v1/projects/{WRITE}/settings")
        destination = answer.json()["integrations"]["Segment.io"]
        assert destination["apiKey"] == WRITE
        assert f"{destination['protocol']}://{destination['apiHost']}" == f"{gateway.url}/v1"

    @pytest.mark.parametrize("key", ["unknown", SECRET])
    async def test_settings_exist_for_write_keys_alone(self, gateway: RunningGateway, key: str) -> None:
        answer = await gateway.http.get(f"/v1/projects/{key}/settings")
        assert (answer.status_code, answer.json()["code"]) == (404, "UNKNOWN_KEY")

    async def test_request_ids_come_back(self, gateway: RunningGateway) -> None:
        given = await gateway.post("/v1/t", track(), headers={"x-request-id": "order-17"})
        made = await gateway.post("/v1/t", track(), headers={"x-request-id": "bad id"})
        assert given.headers["x-request-id"] == "order-17"
        assert len(made.headers["x-request-id"]) == 32

    async def test_received_time_is_now(self, gateway: RunningGateway) -> None:
        from chassis.clock import now

        before = to_us(now())
        stored = await accepted(gateway, track())
        assert before <= stored.received_time_us <= to_us(now())
