# SPDX-License-Identifier: Apache-2.0
"""Paths to methods."""

from __future__ import annotations

import pytest
from gateway.transcode.router import BadPath, Match, Miss, Router, variables_of

ROUTES = [
    ("GET", "/v1/items"),
    ("POST", "/v1/items:batch"),
    ("GET", "/v1/items/{item_id}"),
    ("POST", "/v1/items/{item_id}:hide"),
    ("GET", "/v1/items/popular"),
    ("GET", "/v1/items/{item_id}/similar"),
    ("PATCH", "/v1/segments/{segment.segment_id}"),
    ("DELETE", "/v1/segments/{segment_id=*}"),
]


def router() -> Router[str]:
    """Return a router whose targets are the templates."""
    made: Router[str] = Router()
    for verb, template in ROUTES:
        made.add(verb, template, template)
    return made


@pytest.mark.parametrize(
    ("verb", "path", "template", "values"),
    [
        ("GET", "/v1/items", "/v1/items", {}),
        ("POST", "/v1/items:batch", "/v1/items:batch", {}),
        ("POST", "/v1/items%3Abatch", "/v1/items:batch", {}),
        ("GET", "/v1/items/7", "/v1/items/{item_id}", {"item_id": "7"}),
        ("GET", "/v1/items/a%2Fb", "/v1/items/{item_id}", {"item_id": "a/b"}),
        ("GET", "/v1/items/a:hide", "/v1/items/{item_id}", {"item_id": "a:hide"}),
        ("POST", "/v1/items/a:b:hide", "/v1/items/{item_id}:hide", {"item_id": "a:b"}),
        ("GET", "/v1/items/popular", "/v1/items/popular", {}),
        ("GET", "/v1/items/popular/similar", "/v1/items/{item_id}/similar", {"item_id": "popular"}),
        ("GET", "/v1/items/%EA%B9%80/similar", "/v1/items/{item_id}/similar", {"item_id": "김"}),
        ("PATCH", "/v1/segments/s", "/v1/segments/{segment.segment_id}", {"segment.segment_id": "s"}),
        ("DELETE", "/v1/segments/s", "/v1/segments/{segment_id=*}", {"segment_id": "s"}),
    ],
)
def test_a_path_leads_to_its_template(verb: str, path: str, template: str, values: dict[str, str]) -> None:
    assert router().find(verb, path.encode()) == Match(template, values)


@pytest.mark.parametrize(
    ("verb", "path", "allowed"),
    [
        ("GET", "/", ()),
        ("GET", "/v1/items/", ()),
        ("GET", "/v1//items", ()),
        ("GET", "/v1/items/a/b", ()),
        ("PUT", "/v1/items", ("GET",)),
        ("PUT", "/v1/segments/s", ("DELETE", "PATCH")),
        ("POST", "/v1/items/a", ("GET",)),
        ("PUT", "/v1/items/a:hide", ("GET", "POST")),
        ("POST", "/v1/items/:hide", ("GET",)),
    ],
)
def test_a_path_that_leads_nowhere_says_what_it_would_take(verb: str, path: str, allowed: tuple[str, ...]) -> None:
    assert router().find(verb, path.encode()) == Miss(allowed)


def test_a_path_that_is_not_utf_8_is_no_path() -> None:
    with pytest.raises(BadPath):
        router().find("GET", b"/v1/items/%ff")


@pytest.mark.parametrize("template", ["/v1/{name=shelves/*}", "/v1/**", "/v1/{a}{b}", "/v1//x", "/v1/x{a}"])
def test_a_template_that_is_not_understood_stops_the_start(template: str) -> None:
    with pytest.raises(ValueError, match="does not understand"):
        router().add("GET", template, "x")


def test_two_methods_cannot_share_a_path() -> None:
    with pytest.raises(ValueError, match="two methods"):
        router().add("GET", "/v1/items/{other}", "x")


def test_the_variables_of_a_template_are_field_paths() -> None:
    assert variables_of("/v1/a/{segment.segment_id}/b/{item_id}:verb") == ("segment.segment_id", "item_id")
