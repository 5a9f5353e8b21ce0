# SPDX-License-Identifier: Apache-2.0
"""`/openapi.json`, and `/docs`: the same for people, one page that needs neither scripts nor the outside world."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Iterator
from functools import cached_property
from html import escape
from typing import Any

import msgspec
from fastapi import APIRouter
from fastapi.responses import Response

from gateway.openapi import document
from gateway.transcode.contract import Contract

_STYLE = """\
:root{color-scheme:light dark;--line:#8884;--soft:#8882;--accent:#0a7d5a}
body{font:16px/1.55 system-ui,sans-serif;margin:0 auto;max-width:60rem;padding:2rem 1rem 6rem}
h1,h2,h3{line-height:1.2}h2{margin-top:3rem;border-bottom:1px solid var(--line);padding-bottom:.3rem}
code,pre{font:14px/1.5 ui-monospace,monospace}pre{background:var(--soft);padding:.8rem;overflow:auto;border-radius:6px}
details{border:1px solid var(--line);border-radius:6px;margin:.5rem 0;padding:.4rem .8rem}
summary{cursor:pointer}summary code{font-weight:600}summary b{color:var(--accent);display:inline-block;width:4.5rem}
table{border-collapse:collapse;width:100%;margin:.5rem 0}
td,th{border-bottom:1px solid var(--line);padding:.3rem .5rem;text-align:left;vertical-align:top}
a{color:var(--accent)}nav a{margin-right:1rem}.muted{opacity:.75}
"""
_STYLE_HASH = b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'; base-uri 'none'"


class Documents:
    """The API document, made when it is first asked for."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract

    @cached_property
    def openapi(self) -> bytes:
        """The document as JSON."""
        return msgspec.json.encode(self._document)

    @cached_property
    def page(self) -> bytes:
        """The document as a page."""
        return "".join(_page(self._document)).encode()

    @cached_property
    def _document(self) -> dict[str, Any]:
        return document.build(self._contract)


def router(contract: Contract) -> APIRouter:
    """Return the two routes."""
    documents = Documents(contract)
    routes = APIRouter(include_in_schema=False)

    @routes.get("/openapi.json")
    async def openapi() -> Response:
        return Response(documents.openapi, media_type="application/json", headers={"access-control-allow-origin": "*"})

    @routes.get("/docs")
    async def docs() -> Response:
        return Response(documents.page, media_type="text/html", headers={"content-security-policy": _POLICY})

    return routes


def _page(api: dict[str, Any]) -> Iterator[str]:
    info = api["info"]
    yield f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])} API</title>"
    yield f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style>"
    yield f"<h1>{escape(info['title'])} API <span class=muted>{escape(info['version'])}</span></h1>"
    yield f"{_prose(info['description'])}<nav><a href='/openapi.json'>openapi.json</a>"
    for tag in api["tags"]:
        yield f"<a href='#{tag['name']}'>{escape(tag['name'])}</a>"
    yield "<a href='#schemas'>schemas</a></nav>"
    for tag in api["tags"]:
        yield f"<h2 id='{tag['name']}'>{escape(tag['name'].capitalize())}</h2>{_prose(tag['description'])}"
        for path, item in api["paths"].items():
            for verb, operation in item.items():
                if tag["name"] in operation["tags"]:
                    yield from _operation(path, verb, operation)
    yield "<h2 id=schemas>Schemas</h2>"
    for name, schema in api["components"]["schemas"].items():
        yield from _schema(name, schema)


def _operation(path: str, verb: str, operation: dict[str, Any]) -> Iterator[str]:
    name = operation["operationId"]
    yield f"<details id='op-{name}'><summary><b>{verb.upper()}</b> <code>{escape(path)}</code> "
    yield f"{_inline(operation['summary'])}</summary>{_prose(operation['description'])}"
    if operation.get("parameters"):
        yield "<table><tr><th>parameter<th>in<th>type<th>"
        for parameter in operation["parameters"]:
            needed = ", required" if parameter.get("required") else ""
            yield f"<tr><td><code>{escape(parameter['name'])}</code><td>{parameter['in']}{needed}"
            yield f"<td>{_type(parameter['schema'])}<td>{_inline(parameter.get('description', ''))}"
        yield "</table>"
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body:
        yield f"<p>Body: {_type(body['schema'])}</p>"
    yield f"<pre>{escape(_curl(path, verb, operation, body))}</pre><table><tr><th>status<th>answer<th>"
    for status, response in operation["responses"].items():
        kinds = [_type(content["schema"]) for content in response.get("content", {}).values()]
        yield f"<tr><td>{status}<td>{' '.join(kinds)}<td>{_inline(response['description'])}"
    yield "</table></details>"


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"<details id='schema-{name}'><summary><code>{name}</code></summary>{_prose(schema.get('description', ''))}"
    if schema.get("properties"):
        yield "<table><tr><th>field<th>type<th>"
        for field, held in schema["properties"].items():
            notes = ["required"] if field in schema.get("required", ()) else []
            notes += ["read-only"] if held.get("readOnly") else []
            notes += [f"{word} {held[word]}" for word in _LIMITS if word in held]
            yield f"<tr><td><code>{escape(field)}</code><td>{_type(held)}<td>{_inline(held.get('description', ''))}"
            yield f" <span class=muted>{escape(', '.join(notes))}</span>"
        yield "</table>"
    yield "</details>"


_LIMITS = ("minLength", "maxLength", "maxItems", "minimum", "maximum", "pattern")


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"<a href='#schema-{name}'>{name}</a>"
    if schema.get("type") == "array":
        return f"array of {_type(schema['items'])}"
    kind = schema.get("type", "any")
    words = " or ".join(kind) if isinstance(kind, list) else str(kind)
    more = schema.get("additionalProperties")
    if isinstance(more, dict):
        return f"map of {_type(more)}"
    return f"{words} ({schema['format']})" if "format" in schema else words


def _curl(path: str, verb: str, operation: dict[str, Any], body: dict[str, Any] | None) -> str:
    for parameter in operation.get("parameters", ()):
        value = str(parameter.get("example", parameter["name"]))
        path = path.replace("{" + parameter["name"] + "}", value)
    lines = [f"curl -X {verb.upper()} 'http://127.0.0.1:8080{path}'"]
    if operation["security"]:
        key = "dk_write_local" if {"basic": []} in operation["security"] else "dk_secret_local"
        lines.append(f"-H 'X-API-Key: {key}'")
    if body:
        lines.append("-H 'Content-Type: application/json'")
        lines.append(f"-d '{_quoted(json.dumps(body.get('example', {}), ensure_ascii=False))}'")
    return " \\\n  ".join(lines)


def _quoted(text: str) -> str:
    return text.replace("'", "'\\''")


def _prose(text: str) -> str:
    paragraphs = [part for part in text.split("\n\n") if part.strip()]
    return "".join(_list(part) if part.lstrip().startswith("- ") else f"<p>{_inline(part)}</p>" for part in paragraphs)


def _list(text: str) -> str:
    items = [line.removeprefix("- ") for line in text.strip().splitlines()]
    return "<ul>" + "".join(f"<li>{_inline(item)}" for item in items) + "</ul>"


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
