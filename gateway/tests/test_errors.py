# SPDX-License-Identifier: Apache-2.0
"""The tables from meanings to codes to HTTP, and both kinds of error body."""

from __future__ import annotations

import json

import grpc
import pytest
from chassis.errors import Conflict, DangolError, Invalid, ResourceExhausted, Unavailable, Violation
from chassis.rpc import STATUS_OF

from chassis import errors as meanings
from gateway import errors


def test_every_grpc_code_has_an_http_status() -> None:
    assert set(errors.HTTP_STATUS_OF) == set(grpc.StatusCode)


def test_every_meaning_has_the_code_that_services_give_it() -> None:
    known = {error for error in vars(meanings).values() if isinstance(error, type) and issubclass(error, DangolError)}
    assert set(errors.CODE_OF) == known - {DangolError}
    assert all(STATUS_OF[error] is code for error, code in errors.CODE_OF.items())


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (Unavailable("x"), 1),
        (Unavailable("x", retry_after_seconds=9), 9),
        (ResourceExhausted("x", retry_after_seconds=100_000), 300),
        (Conflict("x"), None),
    ],
)
def test_retry_after_is_whole_seconds_that_clients_believe(error: DangolError, seconds: int | None) -> None:
    assert errors.refusal_of(error).retry_after_seconds == seconds


def test_a_problem_leaves_out_what_there_is_not() -> None:
    refusal = errors.refusal_of(Invalid("no", violations=[Violation("a.b", "is wrong")]))
    problem = json.loads(errors.problem_body(refusal, instance="/v1/x", request_id="r"))
    assert problem["violations"] == [{"field": "a.b", "rule": "is wrong"}]
    assert "metadata" not in problem


def test_the_body_for_clients_of_segment_has_exactly_the_two_keys() -> None:
    assert json.loads(errors.segment_body(errors.internal())).keys() == {"code", "message"}


@pytest.mark.parametrize(
    ("path", "spelled"),
    [
        ("page_size", "pageSize"),
        ("segment.rule_version", "segment.ruleVersion"),
        ("items[0].item_id", "items[0].itemId"),
    ],
)
def test_paths_of_fields_are_spelled_as_in_json(path: str, spelled: str) -> None:
    assert errors.json_path(path) == spelled


def test_every_status_has_a_title() -> None:
    assert all(errors.title_of(status) for status in errors.HTTP_STATUS_OF.values())
