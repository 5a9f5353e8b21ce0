# SPDX-License-Identifier: Apache-2.0
"""Incoming webhooks: who sends them is certain, and their JSON becomes events exactly once."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path as FilePath
from typing import Any

import httpx
import pytest
from chassis.bus import EVENTS
from chassis.engines import free_ports
from chassis.testing import Engines, running
from dangol.events.v1 import events_pb2 as pb
from dangol.profile.v1.profile_pb2 import GetProfileRequest
from dangol.profile.v1.profile_pb2_grpc import ProfileServiceStub
from gateway.webhooks.mapping import Mapper, Rule
from gateway.webhooks.paths import Path
from gateway.webhooks.sources import read_sources
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook
from svc_profile.app import build as build_profile
from svc_profile.settings import Settings as ProfileSettings

from .conftest import RunningGateway, running_gateway

GUIDE = FilePath(__file__).parents[2] / "docs/guides/collecting-events.md"
OLD, NEW = (f"whsec_{base64.b64encode(bytes([n]) * 24).decode()}" for n in (1, 2))
PLAIN = "it-is-a-secret-to-everybody"
ORDER = {
    "type": "order.created",
    "created_at": "2026-11-01T12:00:00+09:00",
    "data": {
        "id": 8001,
        "customer": {"id": 42, "name": "김단골 😀"},
        "total": 29000,
        "lines": [{"sku": "sku-1", "quantity": 2}, {"sku": "sku-2", "quantity": 1}],
    },
}
ORDER_RULES = [
    {
        "when": {"$.type": ["order.created", "order.paid"]},
        "event": "Order Completed",
        "userId": "$.data.customer.id",
        "timestamp": "$.created_at",
        "properties": {
            "orderId": "$.data.id",
            "revenue": "$.data.total",
            "currency": "KRW",
            "skus": "$.data.lines[*].sku",
        },
    },
    {
        "when": {"$.type": "order.created"},
        "each": "$.data.lines",
        "event": "Product Ordered",
        "userId": "$.data.customer.id",
        "properties": "@",
    },
    {
        "when": {"$.type": "order.created"},
        "type": "identify",
        "userId": "$.data.customer.id",
        "traits": {"name": "$.data.customer.name"},
    },
]
ANY = [{"event": "$.action", "userId": "$.sender.id", "messageId": "$.id", "properties": "$"}]
SOURCES: list[dict[str, Any]] = [
    {"name": "orders", "signature": {"scheme": "standard", "secrets": [NEW, OLD]}, "rules": ORDER_RULES},
    {
        "name": "github",
        "signature": {
            "scheme": "hmac-sha256",
            "secrets": [PLAIN],
            "header": "X-Hub-Signature-256",
            "prefix": "sha256=",
        },
        "rules": ANY,
    },
    {
        "name": "shopify",
        "signature": {
            "scheme": "hmac-sha256",
            "secrets": [PLAIN],
            "header": "X-Shopify-Hmac-Sha256",
            "encoding": "base64",
        },
        "rules": ANY,
    },
    {
        "name": "slack",
        "signature": {
            "scheme": "hmac-sha256",
            "secrets": [PLAIN],
            "header": "X-Slack-Signature",
            "prefix": "v0=",
            "timestamp_header": "X-Slack-Request-Timestamp",
            "signed": "v0:{timestamp}:{body}",
        },
        "rules": ANY,
    },
]


@pytest.fixture(scope="module")
async def shared(nats_url: str) -> AsyncIterator[RunningGateway]:
    """Serve a gateway that knows some third parties."""
    async with running_gateway(nats_url, incoming_webhooks=json.dumps(SOURCES)) as started:
        yield started


@pytest.fixture
async def hooks(shared: RunningGateway) -> RunningGateway:
    """Return that gateway with empty streams."""
    await shared.bus.jetstream.purge_stream(shared.bus.stream(EVENTS))
    return shared


async def send(
    gateway: RunningGateway,
    body: Any,
    *,
    secret: str = NEW,
    message_id: str = "msg_1",
    age: timedelta = timedelta(0),
    **changes: Any,
) -> httpx.Response:
    """Send as the reference library of Standard Webhooks does; `changes` replace what it made."""
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    moment = datetime.now(UTC) - age
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, moment, text),
        **changes.pop("headers", {}),
    }
    path = changes.pop("path", "/v1/webhooks/orders")
    return await gateway.http.post(path, content=changes.pop("content", text.encode()), headers=headers)


def body_of(**members: Any) -> bytes:
    """Return a body for the sources that take anything."""
    return json.dumps({"action": "opened", "sender": {"id": 7}, **members}, ensure_ascii=False).encode()


def mac(signed: bytes, secret: str = PLAIN) -> bytes:
    """Sign as most senders do."""
    return hmac.digest(secret.encode(), signed, hashlib.sha256)


class TestStandardWebhooks:
    """The unmodified reference library is the sender."""

    async def test_one_delivery_becomes_the_events_that_its_rules_make(self, hooks: RunningGateway) -> None:
        answer = await send(hooks, ORDER)
        assert answer.status_code == 200
        assert answer.json() == {"success": True, "accepted": 4, "rejected": 0, "errors": []}
        events = await hooks.collected()
        assert {event.source for event in events} == {"orders"}
        assert {event.user_id for event in events} == {"42"}
        assert [event.message_id for event in events] == ["msg_1:0:0", "msg_1:1:0", "msg_1:1:1", "msg_1:2:0"]
        order, *lines, identify = events
        assert (order.type, order.name) == (pb.EVENT_TYPE_TRACK, "Order Completed")
        assert json.loads(order.properties) == {
            "orderId": 8001,
            "revenue": 29000,
            "currency": "KRW",
            "skus": ["sku-1", "sku-2"],
        }
        assert order.time_us == int(datetime(2026, 11, 1, 3, tzinfo=UTC).timestamp()) * 1_000_000
        assert [json.loads(line.properties)["sku"] for line in lines] == ["sku-1", "sku-2"]
        assert json.loads(identify.traits) == {"name": "김단골 😀"}

    async def test_what_no_rule_is_about_is_taken_and_makes_nothing(self, hooks: RunningGateway) -> None:
        """A sender that tells of everything must not be made to send it for ever."""
        answer = await send(hooks, {"type": "order.viewed"})
        assert (answer.status_code, answer.json()["accepted"], answer.json()["rejected"]) == (200, 0, 0)
        assert await hooks.collected() == []

    async def test_an_event_that_cannot_be_taken_costs_only_itself(self, hooks: RunningGateway) -> None:
        body = {"type": "order.paid", "data": {"customer": {}, "id": "주문-1"}}
        answer = await send(hooks, body)
        assert (answer.status_code, answer.json()["errors"][0]["reason"]) == (200, "ID_MISSING")
        (refused,) = await hooks.rejected()
        assert (refused.source, refused.message_id) == ("orders", "msg_1:0:0")

    @pytest.mark.parametrize("secret", [OLD, NEW])
    async def test_both_secrets_work_while_they_are_rotated(self, hooks: RunningGateway, secret: str) -> None:
        assert (await send(hooks, ORDER, secret=secret)).status_code == 200

    async def test_one_good_signature_among_several_is_enough(self, hooks: RunningGateway) -> None:
        good = Webhook(NEW).sign("msg_1", datetime.now(UTC), json.dumps(ORDER, ensure_ascii=False))
        answer = await send(hooks, ORDER, headers={"webhook-signature": f"v1a,AAAA v1,AAAA {good}"})
        assert answer.status_code == 200

    @pytest.mark.parametrize(
        "changes",
        [
            {"secret": f"whsec_{base64.b64encode(b'somebody else 0123456789').decode()}"},
            {"content": json.dumps({**ORDER, "type": "order.paid"}).encode()},
            {"headers": {"webhook-id": "msg_2"}},
            {"headers": {"webhook-id": ""}},
            {"headers": {"webhook-id": "msg_1.1"}},
            {"headers": {"webhook-timestamp": "soon"}},
            {"headers": {"webhook-signature": ""}},
            {"headers": {"webhook-signature": "v1,"}},
            {"headers": {"webhook-signature": "v1,@@@ v2,x"}},
            {"age": timedelta(minutes=6)},
            {"age": timedelta(minutes=-6)},
        ],
    )
    async def test_what_is_not_signed_as_it_is_is_401_and_leaves_nothing(
        self, hooks: RunningGateway, changes: dict[str, Any]
    ) -> None:
        answer = await send(hooks, ORDER, **changes)
        assert answer.status_code == 401
        assert answer.json()["reason"] == "SIGNATURE_INVALID"
        assert await hooks.collected() == []
        assert await hooks.rejected() == []

    async def test_an_old_delivery_cannot_be_made_young(self, hooks: RunningGateway) -> None:
        """The time is signed too."""
        now = str(int(datetime.now(UTC).timestamp()))
        answer = await send(hooks, ORDER, age=timedelta(minutes=4), headers={"webhook-timestamp": now})
        assert answer.status_code == 401

    async def test_the_signature_is_looked_at_before_the_body(self, hooks: RunningGateway) -> None:
        assert (await send(hooks, "{", secret=OLD, headers={"webhook-id": "other"})).status_code == 401
        answer = await send(hooks, "{")
        assert (answer.status_code, answer.json()["reason"]) == (400, "INVALID_JSON")
        assert (await send(hooks, "[" * 100_000)).status_code == 400

    async def test_a_source_that_nobody_configured_is_404(self, hooks: RunningGateway) -> None:
        for path in ("/v1/webhooks/nobody", "/v1/webhooks/%6frders%00"):
            assert (await send(hooks, ORDER, path=path)).status_code == 404

    async def test_a_body_above_the_limit_is_413(self, hooks: RunningGateway) -> None:
        assert (await send(hooks, {"text": "y" * 2**20})).status_code == 413

    async def test_awkward_json_costs_no_event_that_can_be_kept(self, hooks: RunningGateway) -> None:
        customer = '{"id": "u", "name": "\\u0000\\ud800"}'
        text = f'{{"type": "order.created", "data": {{"customer": {customer}, "total": NaN, "id": 1e999}}}}'
        assert (await send(hooks, text)).json()["accepted"] == 2
        order, identify = await hooks.collected()
        assert json.loads(order.properties) == {"currency": "KRW", "orderId": None}
        assert json.loads(identify.traits) == {"name": "\ufffd\ufffd"}


class TestOtherSchemes:
    """One header with an HMAC of the body."""

    async def test_as_github_signs(self, hooks: RunningGateway) -> None:
        """The worked example of GitHub's documentation holds, and so does a real request."""
        assert mac(b"Hello, World!", "It's a Secret to Everybody").hex() == (
            "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        )
        body = body_of(title="상품 문의")
        headers = {"X-Hub-Signature-256": f"sha256={mac(body).hex()}"}
        assert (await hooks.http.post("/v1/webhooks/github", content=body, headers=headers)).status_code == 200
        (event,) = await hooks.collected()
        assert (event.name, event.user_id, event.source) == ("opened", "7", "github")
        assert event.message_id == f"{hashlib.sha256(body).hexdigest()}:0:0"
        headers = {"X-Hub-Signature-256": mac(body).hex()}
        assert (await hooks.http.post("/v1/webhooks/github", content=body, headers=headers)).status_code == 401

    async def test_as_shopify_signs(self, hooks: RunningGateway) -> None:
        body = body_of(id="order-1")
        headers = {"X-Shopify-Hmac-Sha256": base64.b64encode(mac(body)).decode()}
        assert (await hooks.http.post("/v1/webhooks/shopify", content=body, headers=headers)).status_code == 200
        (event,) = await hooks.collected()
        assert event.message_id == "order-1"
        body = body_of(id="")
        headers = {"X-Shopify-Hmac-Sha256": base64.b64encode(mac(body)).decode()}
        for _ in range(2):
            assert (await hooks.http.post("/v1/webhooks/shopify", content=body, headers=headers)).status_code == 200
        name = f"{hashlib.sha256(body).hexdigest()}:0:0"
        assert [event.message_id for event in await hooks.collected()] == ["order-1", name, name]
        answer = await hooks.http.post("/v1/webhooks/shopify", content=body + b" ", headers=headers)
        assert answer.status_code == 401

    async def test_as_slack_signs_with_the_time(self, hooks: RunningGateway) -> None:
        body = body_of()

        async def status(moment: str, claimed: str) -> int:
            headers = {
                "X-Slack-Signature": f"v0={mac(f'v0:{moment}:'.encode() + body).hex()}",
                "X-Slack-Request-Timestamp": claimed,
            }
            return (await hooks.http.post("/v1/webhooks/slack", content=body, headers=headers)).status_code

        moment = datetime.now(UTC)
        now, old = (str(int(at.timestamp())) for at in (moment, moment - timedelta(minutes=6)))
        iso = moment.astimezone(timezone(timedelta(hours=9))).isoformat()
        assert await status(iso, iso) == 200
        assert await status(f"{now}:x", f"{now}:x") == 401
        assert await status(now, now) == 200
        assert await status(old, old) == 401
        assert await status(old, now) == 401


async def test_a_delivery_that_comes_again_counts_once(engines: Engines) -> None:
    """Senders repeat what they think was lost, and others what they have seen: the store knows the message ids."""
    shared: dict[str, Any] = {"stream_prefix": "hooks.", "event_shards": 2}
    async with (
        running(build_profile, ProfileSettings, engines, **shared) as profile,
        running_gateway(engines.nats_url, incoming_webhooks=json.dumps(SOURCES), **shared) as gateway,
    ):
        for _ in range(3):
            assert (await send(gateway, ORDER)).status_code == 200
        assert (await send(gateway, ORDER, message_id="msg_2")).status_code == 200
        await profile.settled()
        answer = await profile.stub(ProfileServiceStub).GetProfile(GetProfileRequest(profile="user_id:42"))
        assert dict(answer.profile.event_counts) == {"identify": 2, "Order Completed": 2, "Product Ordered": 4}


async def test_without_jetstream_the_sender_is_asked_to_come_again() -> None:
    """200 would promise what nobody has stored."""
    (port,) = free_ports(1)
    setting = json.dumps(SOURCES)
    async with running_gateway(f"nats://127.0.0.1:{port}", is_ready=False, incoming_webhooks=setting) as gateway:
        answer = await send(gateway, ORDER)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1


async def test_the_call_of_the_guide_works(nats_url: str) -> None:
    """Its setting, and its signature by hand with openssl."""
    if shutil.which("openssl") is None or shutil.which("curl") is None:
        pytest.skip("openssl or curl is not installed")
    section = GUIDE.read_text(encoding="utf-8").partition("## From other systems")[2]
    setting, command, answer = re.findall(r"```(?:json|sh)\n(.*?)```", section, re.DOTALL)[:3]
    async with running_gateway(nats_url, incoming_webhooks=setting) as gateway:
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", command.replace("http://127.0.0.1:8080", gateway.url), stdout=subprocess.PIPE
        )
        said, _ = await process.communicate()
        assert json.loads(said) == json.loads(answer)
        assert [event.name for event in await gateway.collected()] == ["Order Completed", "Product Ordered"]


def changed(change: Callable[[dict[str, Any]], None]) -> str:
    """Return a configuration with one thing wrong."""
    source = json.loads(json.dumps(SOURCES[3]))
    change(source)
    return json.dumps([source])


class TestConfiguration:
    """What cannot work stops the start, is named, and no secret is shown."""

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ("{", "DANGOL_INCOMING_WEBHOOKS"),
            (json.dumps([SOURCES[0], SOURCES[0]]), "same name"),
            (changed(lambda s: s.update(name="A/B")), "name"),
            (changed(lambda s: s.update(rules=[])), "rules"),
            (changed(lambda s: s["signature"].update(scheme="md5")), "signature"),
            (changed(lambda s: s["signature"].update(secrets=[])), "secrets"),
            (changed(lambda s: s["signature"].update(secrets=["short"])), "16 bytes"),
            (changed(lambda s: s["signature"].update(signed="{timestamp}")), "{body}"),
            (changed(lambda s: s["signature"].update(signed="{body}")), "{timestamp}"),
            (changed(lambda s: s["rules"][0].update(userId="$.a..b")), "'$.a..b' is not a path"),
            (changed(lambda s: s["rules"][0].update(properties={"x": ["$["]})), "'$[' is not a path"),
            (changed(lambda s: s["rules"][0].update(when={"type": "x"})), "'type' is not a path"),
            (changed(lambda s: s["rules"][0].update(each="lines")), "each"),
            (changed(lambda s: s["rules"][0].update(userID="x")), "userID"),
        ],
    )
    def test_mistakes_are_named(self, text: str, named: str) -> None:
        with pytest.raises(ValueError, match="DANGOL_INCOMING_WEBHOOKS") as raised:
            read_sources(text)
        assert named in str(raised.value)
        assert PLAIN not in str(raised.value)
        assert NEW not in str(raised.value)
        assert "short" not in str(raised.value)

    def test_a_standard_secret_must_be_base64(self) -> None:
        source = {**SOURCES[0], "signature": {"scheme": "standard", "secrets": ["whsec_not base64!"]}}
        with pytest.raises(ValueError, match="base64") as raised:
            read_sources(json.dumps([source]))
        assert "not base64!" not in str(raised.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
)


class TestMapping:
    """Rules are applied to whatever comes."""

    RULES = tuple(
        Rule.model_validate(rule)
        for rule in (
            {"when": {"$.a": [1, "x", None]}, "event": "$.b", "userId": "$.c", "properties": {"all": ["$", "@.a"]}},
            {"each": "$.a", "when": {"@.b": True}, "event": "$$5", "userId": "@.c", "messageId": "@.a"},
        )
    )

    @given(JSON, st.text(min_size=1, max_size=120))
    def test_any_body_makes_the_same_events_each_time_it_comes(self, body: Any, delivery: str) -> None:
        mapper = Mapper(self.RULES)
        events = list(mapper.events(body, delivery))
        assert events == list(mapper.events(body, delivery))
        made = [json.loads(event)["messageId"] for event in events]
        own = [name for name in made if isinstance(name, str) and name.startswith(delivery)]
        assert len(own) == len(set(own))

    def test_conditions_tell_true_from_one_and_constants_may_begin_with_a_dollar(self) -> None:
        elements = [{"b": True, "c": "u"}, {"b": 1, "c": "v"}, {"b": False}, "no object"]
        (event,) = Mapper(self.RULES).events({"a": elements}, "d")
        assert json.loads(event) == {"type": "track", "event": "$5", "userId": "u", "messageId": "d:1:0"}


class TestPaths:
    """The part of JSONPath that names things."""

    @pytest.mark.parametrize(
        ("path", "found"),
        [
            ("$", {"a": {"b": [1, {"c": 2}]}, "점수": 3, "x y": None}),
            ("$.a.b[0]", 1),
            ("$.a.b[1].c", 2),
            ("$.a.b[*].c", [None, 2]),
            ("$.점수", 3),
            ("$['점수']", 3),
            ('$["x y"]', None),
            ("$.a.b[9]", None),
            ("$.nothing.at.all", None),
            ("$.a[*]", None),
            ("@.k", "element"),
        ],
    )
    def test_what_a_path_finds(self, path: str, found: Any) -> None:
        root = {"a": {"b": [1, {"c": 2}]}, "점수": 3, "x y": None}
        assert Path.read(path).find(root, {"k": "element"}) == found

    @given(JSON, st.lists(st.sampled_from([".a", "[0]", "[*]", "['b']"]), max_size=5))
    def test_no_body_makes_a_path_fail(self, body: Any, steps: list[str]) -> None:
        """Whatever a sender sends, a path finds something or None."""
        Path.read("$" + "".join(steps)).find(body, body)
