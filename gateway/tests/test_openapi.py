# SPDX-License-Identifier: Apache-2.0
"""The API document: valid, complete, and good enough to generate a client from."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from gateway.openapi import document
from gateway.transcode import contract
from openapi_spec_validator import OpenAPIV31SpecValidator

from .conftest import SECRET, WRITE, RunningGateway

CONTRACT = contract.load()
API = document.build(CONTRACT)
SCHEMAS = API["components"]["schemas"]


def operations() -> dict[str, dict[str, Any]]:
    """Return every operation by its id."""
    return {operation["operationId"]: operation for item in API["paths"].values() for operation in item.values()}


def valid(name: str, value: Any) -> bool:
    """Tell whether a value is valid under a schema of the document."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": API["components"]}
    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))


def test_the_document_is_valid_openapi_3_1() -> None:
    assert API["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(json.loads(json.dumps(API))).validate()
    for schema in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_binding_of_every_method_is_an_operation() -> None:
    bindings = [(b.verb.lower(), m) for m in CONTRACT.methods for b in m.bindings]
    contract_operations = [o for o in operations().values() if not {"events", "files"} & {*o["tags"]}]
    assert len(contract_operations) == len(bindings)
    assert len(operations()) == sum(len(item) for item in API["paths"].values())


def test_everything_is_described() -> None:
    for name, operation in operations().items():
        assert operation["summary"], name
        assert operation["description"], name
        assert {"200", "400", "401"} <= operation["responses"].keys() or operation["security"] == []
    for name, schema in SCHEMAS.items():
        assert schema.get("description") or name in ("IngestAnswer", "EventError"), name
        for field, held in schema.get("properties", {}).items():
            assert held.get("description") or "$ref" in held or name in ("IngestAnswer", "EventError", "Batch"), field


def test_what_the_contract_says_of_a_field_is_in_its_schema() -> None:
    segment = SCHEMAS["Segment"]
    assert segment["required"] == ["name", "rule"]
    assert segment["properties"]["segmentId"]["readOnly"] is True
    assert segment["properties"]["name"]["maxLength"] == 100
    assert segment["properties"]["name"]["examples"] == ["loyal-in-seoul"]
    assert "required" not in SCHEMAS["SegmentPatch"]
    assert SCHEMAS["BatchUpsertItemsRequest"]["properties"]["items"]["maxItems"] == 1000
    assert SCHEMAS["DeadLetter"]["properties"]["deadLetterId"]["type"] == "string"
    assert "REASON_TYPE_POPULAR" in SCHEMAS["ReasonType"]["enum"]


def test_every_example_is_valid_under_its_own_schema() -> None:
    for name, schema in SCHEMAS.items():
        for example in schema.get("examples", ()):
            assert valid(name, example), name
    for operation in operations().values():
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        if "example" in content and "$ref" in content["schema"]:
            assert valid(content["schema"]["$ref"].rpartition("/")[2], content["example"])


def test_a_field_that_is_not_required_may_be_empty_whatever_its_pattern() -> None:
    assert valid("QueryKpisRequest", {"startDate": ""})
    assert not valid("QueryKpisRequest", {"startDate": "yesterday"})


async def test_real_answers_are_valid_under_their_schemas(gateway: RunningGateway) -> None:
    headers = {"x-api-key": SECRET}
    for path, name in (
        ("/v1/profiles/user_id:u1", "Profile"),
        ("/v1/profiles/user_id:u1/recommendations", "RecommendItemsResponse"),
        ("/v1/kpis?startDate=2026-11-01", "QueryKpisResponse"),
        ("/v1/profiles/user_id:nobody", "Problem"),
        ("/v1/identity-conflicts?pageSize=5000", "Problem"),
    ):
        assert valid(name, (await gateway.http.get(path, headers=headers)).json()), path
    taken = await gateway.post("/v1/batch", {"batch": [{"type": "nonsense"}]})
    assert valid("IngestAnswer", taken.json())
    assert valid("IngestError", (await gateway.post("/v1/batch", b"{")).json())


async def test_the_document_and_the_page_are_served_without_a_key(gateway: RunningGateway) -> None:
    served = await gateway.http.get("/openapi.json")
    assert served.json() == json.loads(json.dumps(API))
    page = await gateway.http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    # Examples may name addresses; nothing is loaded from one, and nothing links to one.
    assert not re.search(r"(?:src|href|action)\s*=\s*['\"]?(?:https?:)?//|@import|url\(", page.text)
    assert "<script" not in page.text
    assert "style-src 'sha256-" in page.headers["content-security-policy"]
    for name in operations():
        assert f"id='op-{name}'" in page.text


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """Generate a client from the document and import it."""
    folder = tmp_path_factory.mktemp("generated")
    described = folder / "openapi.json"
    described.write_text(json.dumps(API))
    _generate(described, folder / "dangol_client")
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("dangol_client")
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.split(".")[0] == "dangol_client"]:
            del sys.modules[name]


def _generate(described: Path, target: Path) -> None:
    config = target.parent / "config.json"
    config.write_text(json.dumps({"post_hooks": []}))
    command = [
        str(Path(sys.executable).parent / "openapi-python-client"),
        *("generate", "--path", str(described), "--output-path", str(target), "--meta", "none"),
        *("--config", str(config), "--fail-on-warning"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


async def test_a_generated_client_reads_and_writes(gateway: RunningGateway, client: ModuleType) -> None:
    models = importlib.import_module("dangol_client.models")
    async with client.AuthenticatedClient(gateway.url, token=SECRET) as caller:
        profile = await _call("profile.get_profile", "user_id:김단골", client=caller)
        assert profile.profile_id == "prf_1"
        assert profile.event_counts["Order Completed"] == 3
        missing = await _call("profile.get_profile", "user_id:nobody", client=caller)
        assert (missing.status, missing.code) == (404, "NOT_FOUND")
        segment = models.Segment(name="loyal", rule="true")
        created = await _call("segmentation.create_segment", client=caller, body=segment, request_id="r1")
        assert created.segment_id == "seg_r1"
        patch = models.SegmentPatch(description="new")
        changed = await _call("segmentation.update_segment", "seg_1", client=caller, body=patch, update_mask="name")
        assert changed.segment_id == "seg_1"
        answer = await _call("recommend.recommend_items", "user_id:u", client=caller, page_size=2)
        assert [item.item_id for item in answer.recommendations] == ["sku-0", "sku-1"]


async def test_a_generated_client_sends_events(gateway: RunningGateway, client: ModuleType) -> None:
    models = importlib.import_module("dangol_client.models")
    event = models.Event.from_dict({"type": "track", "event": "A", "userId": "u"})
    async with client.AuthenticatedClient(gateway.url, token=WRITE) as caller:
        taken = await _call("events.send_batch", client=caller, body=models.Batch(batch=[event]))
    assert taken.accepted == 1
    assert [stored.user_id for stored in await gateway.collected()] == ["u"]


async def _call(operation: str, *arguments: Any, **named: Any) -> Any:
    return await importlib.import_module(f"dangol_client.api.{operation}").asyncio(*arguments, **named)
