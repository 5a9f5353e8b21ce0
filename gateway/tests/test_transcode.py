# SPDX-License-Identifier: Apache-2.0
"""Every annotated RPC as an HTTP route: binding, JSON, errors, keys."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from .conftest import SECRET, WRITE, RunningGateway, running_gateway

AUTH = {"authorization": f"Bearer {SECRET}"}


async def ask(gateway: RunningGateway, verb: str, path: str, **arguments: Any) -> httpx.Response:
    """Call as a server with the development key."""
    return await gateway.http.request(verb, path, headers={**AUTH, **arguments.pop("headers", {})}, **arguments)


def violations(answer: httpx.Response) -> dict[str, str]:
    """Return what the answer says of each field, after looking at its form."""
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "INVALID_ARGUMENT"
    return {violation["field"]: violation["rule"] for violation in problem["violations"]}


class TestBinding:
    """Path, query and body."""

    @pytest.mark.parametrize(
        "reference",
        [
            "user_id:u1",
            "user_id:김단골",
            "user_id:a/b",
            "user_id:a%b",
            "email:kim+1@shop.example",
            "user_id:🍊 x",
            "a:b:c",
        ],
    )
    async def test_a_path_value_may_hold_anything_when_it_is_encoded(
        self, gateway: RunningGateway, reference: str
    ) -> None:
        answer = await ask(gateway, "GET", f"/v1/profiles/{quote(reference, safe='')}")
        assert answer.status_code == 200
        assert answer.json()["identifiers"][0]["value"] == reference

    async def test_colons_and_korean_need_no_encoding_by_hand(self, gateway: RunningGateway) -> None:
        answer = await ask(gateway, "GET", "/v1/profiles/user_id:김단골/segments")
        assert answer.json() == {"profileId": "user_id:김단골", "segments": []}

    async def test_the_answer_may_be_one_field_of_the_response(self, gateway: RunningGateway) -> None:
        profile = (await ask(gateway, "GET", "/v1/profiles/user_id:u1")).json()
        assert profile == {
            "profileId": "prf_1",
            "identifiers": [{"namespace": "user_id", "value": "user_id:u1"}],
            "traits": {"name": "김단골", "age": 31, "tags": ["a", None, True], "scale": 1.5},
            "firstSeenTime": "2026-11-01T00:00:00Z",
            "eventCounts": {"Order Completed": 3},
            "revenue": {},
            "groups": [],
            "consents": [],
            "segments": [],
            "stages": [],
            "recentEvents": [],
            "openCases": [],
        }

    @pytest.mark.parametrize(
        ("query", "paths"),
        [
            ("readMask=traits,recentEvents", ["traits", "recent_events"]),
            ("readMask=traits%2CrecentEvents", ["traits", "recent_events"]),
            ("read_mask=segments", ["segments"]),
            ("readMask=recent_events,traits", ["recent_events", "traits"]),
            ("readMask=*", ["*"]),
            ("readMask=", []),
        ],
    )
    async def test_a_mask_of_fields_is_a_parameter(self, gateway: RunningGateway, query: str, paths: list[str]) -> None:
        answer = await ask(gateway, "GET", f"/v1/profiles/user_id:u1?{query}")
        assert answer.json()["groups"] == paths

    async def test_a_key_without_the_right_to_personal_data_gets_it_masked(self, gateway: RunningGateway) -> None:
        """The scopes of the key are those of the call, so the service's door masks for HTTP as for gRPC."""
        seen = await ask(gateway, "GET", "/v1/profiles/email:kim@shop.example")
        masked = await ask(
            gateway, "GET", "/v1/profiles/email:kim@shop.example", headers={"authorization": "Bearer reader-key"}
        )
        assert seen.json()["traits"]["name"] == "김단골"
        assert (masked.status_code, masked.json()["traits"]["name"]) == (200, "김**")

    async def test_a_body_may_be_one_field_and_the_query_the_others(self, gateway: RunningGateway) -> None:
        body = {"name": "loyal", "rule": "true", "segmentId": "ignored by the service's door"}
        answer = await ask(gateway, "POST", "/v1/segments?requestId=r1", json=body)
        assert answer.status_code == 200
        assert answer.json()["segmentId"] == "seg_r1"
        assert answer.json()["memberCount"] == 0

    async def test_a_nested_path_variable_wins_over_the_body(self, gateway: RunningGateway) -> None:
        for body in ({"name": "x"}, {"name": "x", "segmentId": "other"}, {"name": "x", "segment_id": "other"}):
            answer = await ask(gateway, "PATCH", "/v1/segments/seg_7?updateMask=name,ruleVersion", json=body)
            assert answer.json()["segmentId"] == "seg_7"
            assert answer.json()["description"] == "name,rule_version"

    async def test_a_verb_is_part_of_the_path(self, gateway: RunningGateway) -> None:
        for path in ("/v1/segments:preview", "/v1/segments%3Apreview"):
            answer = await ask(gateway, "POST", path, json={"rule": "true", "sampleSize": "7"})
            assert answer.json() == {"count": 7, "population": 0, "sampleProfileIds": ["true"]}

    async def test_query_parameters_go_by_either_spelling(self, gateway: RunningGateway) -> None:
        for name in ("pageSize", "page_size"):
            answer = await ask(gateway, "GET", f"/v1/identity-conflicts?{name}=5&profile=user_id:%EA%B9%80")
            assert answer.json()["nextPageToken"] == "user_id:김/5"

    async def test_an_additional_binding_is_a_route_of_its_own(self, gateway: RunningGateway) -> None:
        got = await ask(gateway, "GET", "/v1/kpis?startDate=2026-11-01")
        posted = await ask(gateway, "POST", "/v1/kpis:query", json={"startDate": "2026-11-01"})
        assert got.json() == posted.json()
        assert got.json()["total"] == {
            "date": "2026-11-01",
            "activeCustomers": 0,
            "events": 0,
            "orders": 2,
            "revenue": 0.0,
            "buyers": 0,
        }

    async def test_an_empty_answer_is_an_empty_object(self, gateway: RunningGateway) -> None:
        assert (await ask(gateway, "DELETE", "/v1/segments/seg_1")).json() == {}

    async def test_head_is_get_without_the_body(self, gateway: RunningGateway) -> None:
        answer = await ask(gateway, "HEAD", "/v1/profiles/user_id:u1")
        assert (answer.status_code, answer.content) == (200, b"")

    async def test_an_empty_body_is_an_empty_request(self, gateway: RunningGateway) -> None:
        assert violations(await ask(gateway, "POST", "/v1/segments:preview")) == {"rule": "is required"}


class TestRefusals:
    """What a request must not be; every mistake is named with its field."""

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"colour": 1}, "segment.colour"),
            ({"name": 1}, "segment.name"),
            ({"name": "x", "ruleVersion": "many"}, "segment.ruleVersion"),
            ({"name": "x", "ruleVersion": 2**31}, "segment.ruleVersion"),
            ({"name": "x", "createdTime": "yesterday"}, "segment.createdTime"),
            ({"name": "x", "name_": "y"}, "segment.name_"),
            ({"memberCount": 1, "member_count": 2}, "segment.member_count"),
            ({"name": "a\x00b"}, "segment.name"),
            ([], "segment"),
            (7, "segment"),
        ],
    )
    async def test_a_bad_body_is_named_by_field(self, gateway: RunningGateway, body: Any, field: str) -> None:
        assert list(violations(await ask(gateway, "POST", "/v1/segments", json=body))) == [field]

    async def test_every_mistake_is_named_at_once(self, gateway: RunningGateway) -> None:
        items = [{"itemId": "a", "title": "A", "price": "free"}, {"itemId": 2, "size": 1, "categories": ["x", 3]}]
        found = violations(await ask(gateway, "POST", "/v1/items:batchUpsert", json={"items": items}))
        assert set(found) == {"items[0].price", "items[1].itemId", "items[1].size", "items[1].categories[1]"}

    async def test_the_limits_of_the_contract_are_named_in_json_spelling(self, gateway: RunningGateway) -> None:
        found = violations(await ask(gateway, "GET", "/v1/identity-conflicts?pageSize=5000"))
        assert found == {"pageSize": "must be from 0 to 1000"}

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("?size=1", "size"),
            ("?pageSize=many", "pageSize"),
            ("?pageSize=1&pageSize=2", "pageSize"),
            ("?page.size=1", "page.size"),
            ("?profile=%00", "profile"),
        ],
    )
    async def test_a_bad_query_is_named_by_parameter(self, gateway: RunningGateway, query: str, field: str) -> None:
        assert list(violations(await ask(gateway, "GET", f"/v1/identity-conflicts{query}"))) == [field]

    async def test_what_belongs_elsewhere_is_not_read_from_the_query(self, gateway: RunningGateway) -> None:
        assert "profile" in violations(await ask(gateway, "GET", "/v1/profiles/user_id:u/segments?profile=x"))
        assert "segment.name" in violations(await ask(gateway, "POST", "/v1/segments?segment.name=x", json={}))
        assert "rule" in violations(await ask(gateway, "POST", "/v1/segments:preview?rule=x", json={}))

    @pytest.mark.parametrize(
        "body",
        [
            b"{",
            b"[1,",
            b'{"a":NaN}',
            b"\xff",
            b'{"name":"\xff"}',
            rb'{"name":"\ud800"}',
            b"[" * 100_000,
            b'{"a":1e999}',
        ],
    )
    async def test_broken_json_is_refused(self, gateway: RunningGateway, body: bytes) -> None:
        for path in ("/v1/segments", "/v1/segments:preview"):
            answer = await ask(gateway, "POST", path, content=body)
            assert answer.status_code == 400
            assert answer.json()["reason"] in ("INVALID_JSON", "NESTED_TOO_DEEP")

    @pytest.mark.parametrize("query", ["%ff=1", "pageSize=%ff", "&".join(f"a{n}=1" for n in range(1001))])
    async def test_a_broken_query_is_refused(self, gateway: RunningGateway, query: str) -> None:
        answer = await ask(gateway, "GET", f"/v1/identity-conflicts?{query}")
        assert (answer.status_code, answer.json()["reason"]) == (400, "INVALID_QUERY")

    async def test_a_large_body_is_refused_unread(self, gateway: RunningGateway) -> None:
        answer = await ask(gateway, "POST", "/v1/segments", content=b"x" * 5_000_000)
        assert (answer.status_code, answer.json()["reason"]) == (413, "BODY_TOO_LARGE")

    @pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/v1/profiles/", "/v1/profiles//segments", "/v1/%ff"])
    async def test_a_path_of_nobody_is_404(self, gateway: RunningGateway, path: str) -> None:
        answer = await ask(gateway, "GET", path)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["reason"] == "ROUTE_NOT_FOUND"

    async def test_a_method_of_nobody_is_405(self, gateway: RunningGateway) -> None:
        answer = await ask(gateway, "PUT", "/v1/segments")
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
        assert answer.json()["status"] == 405


class TestErrors:
    """What services answer, as problems."""

    async def test_a_problem_has_the_members_of_rfc_9457_and_the_facts_of_google_rpc(
        self, gateway: RunningGateway
    ) -> None:
        answer = await ask(
            gateway, "POST", "/v1/segments", json={"name": "taken", "rule": "true"}, headers={"x-request-id": "r-1"}
        )
        assert answer.status_code == 409
        assert answer.json() == {
            "type": "urn:dangol:problem:name-taken",
            "title": "Conflict",
            "status": 409,
            "detail": "the name is taken",
            "instance": "/v1/segments",
            "code": "ALREADY_EXISTS",
            "reason": "NAME_TAKEN",
            "requestId": "r-1",
            "metadata": {"name": "taken"},
        }

    @pytest.mark.parametrize(
        ("reference", "status", "code"),
        [("nobody", 404, "NOT_FOUND"), ("bug", 500, "INTERNAL"), ("busy", 503, "UNAVAILABLE")],
    )
    async def test_a_status_becomes_its_http_counterpart(
        self, gateway: RunningGateway, reference: str, status: int, code: str
    ) -> None:
        answer = await ask(gateway, "GET", f"/v1/profiles/user_id:{reference}")
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert "secret" not in answer.text

    async def test_retry_info_becomes_retry_after(self, gateway: RunningGateway) -> None:
        assert (await ask(gateway, "GET", "/v1/profiles/user_id:busy")).headers["retry-after"] == "7"

    async def test_a_method_that_nobody_implements_is_501(self, gateway: RunningGateway) -> None:
        assert (await ask(gateway, "GET", "/v1/feedback")).status_code == 501

    async def test_a_service_that_takes_too_long_is_504(self, nats_url: str, services: str) -> None:
        async with running_gateway(nats_url, is_ready=False, profile_address=services, rpc_seconds=0.3) as gateway:
            answer = await ask(gateway, "GET", "/v1/profiles/user_id:slow")
            assert (answer.status_code, answer.json()["code"]) == (504, "DEADLINE_EXCEEDED")


class TestKeys:
    """Who may call what."""

    @pytest.mark.parametrize(
        "headers",
        [
            {"authorization": f"Bearer {SECRET}"},
            {"authorization": f"bearer {SECRET}"},
            {"x-api-key": SECRET},
            {"authorization": "Bearer reader-key"},
        ],
    )
    async def test_a_secret_key_reads_profiles(self, gateway: RunningGateway, headers: dict[str, str]) -> None:
        assert (await gateway.http.get("/v1/profiles/user_id:u1", headers=headers)).status_code == 200

    @pytest.mark.parametrize(
        "headers", [{}, {"x-api-key": "unknown"}, {"authorization": "Bearer"}, {"authorization": "Digest x"}]
    )
    async def test_a_stranger_is_401(self, gateway: RunningGateway, headers: dict[str, str]) -> None:
        answer = await gateway.http.get("/v1/profiles/user_id:u1", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["reason"] == "UNKNOWN_KEY"

    async def test_a_missing_scope_is_403_and_named(self, gateway: RunningGateway) -> None:
        answer = await gateway.http.get("/v1/segments", headers={"x-api-key": "reader-key"})
        assert answer.status_code == 403
        assert answer.json()["metadata"] == {"scope": "segmentation.read"}

    async def test_a_write_key_asks_for_its_own_anonymous_visitor(self, gateway: RunningGateway) -> None:
        headers = {"x-api-key": WRITE, "origin": "https://shop.example"}
        answer = await gateway.http.get("/v1/profiles/anonymous_id:a1/recommendations?pageSize=3", headers=headers)
        assert answer.status_code == 200
        assert len(answer.json()["recommendations"]) == 3
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"

    @pytest.mark.parametrize(
        "path",
        [
            "/v1/profiles/user_id:u1/recommendations",
            "/v1/profiles/prf_1/segments",
            "/v1/profiles/email:anonymous_id:x/segments",
            "/v1/profiles/anonymous_id:a1",
            "/v1/profiles/user_id:u1?profile=anonymous_id:a1",
            "/v1/segments",
        ],
    )
    async def test_a_write_key_may_do_nothing_else(self, gateway: RunningGateway, path: str) -> None:
        answer = await gateway.http.get(path, headers={"x-api-key": WRITE})
        assert answer.status_code == 403
        assert answer.json()["reason"] == "SECRET_KEY_NEEDED"

    async def test_a_write_key_is_bound_to_its_origins_here_too(self, gateway: RunningGateway) -> None:
        headers = {"x-api-key": "shop-key", "origin": "https://evil.example"}
        answer = await gateway.http.get("/v1/profiles/anonymous_id:a1/segments", headers=headers)
        assert (answer.status_code, answer.json()["reason"]) == (403, "ORIGIN_NOT_ALLOWED")

    async def test_a_browser_may_ask_beforehand(self, gateway: RunningGateway) -> None:
        answer = await gateway.http.options(
            "/v1/profiles/anonymous_id:a1/recommendations", headers={"origin": "https://shop.example"}
        )
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-methods"] == "GET"

    async def test_limits_hold_for_calls_too(self, gateway: RunningGateway) -> None:
        statuses = []
        for _ in range(2):
            answer = await gateway.http.get(
                "/v1/profiles/anonymous_id:a1/segments", headers={"x-api-key": "slow-visitor-key"}
            )
            statuses.append(answer.status_code)
        assert statuses == [200, 429]
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["code"] == "RESOURCE_EXHAUSTED"


async def test_every_answer_carries_a_request_id_and_security_headers(gateway: RunningGateway) -> None:
    for path in ("/healthz", "/v1/segments", "/nothing"):
        answer = await gateway.http.get(path)
        assert answer.headers["x-request-id"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers


async def test_a_whole_catalogue_goes_through(gateway: RunningGateway) -> None:
    items = [{"itemId": f"sku-{n}", "title": "감귤", "attributes": {"sizes": [1, 2]}} for n in range(1000)]
    answer = await ask(gateway, "POST", "/v1/items:batchUpsert", content=json.dumps({"items": items}))
    assert answer.json() == {"createdCount": 1000, "updatedCount": 0}
