# SPDX-License-Identifier: Apache-2.0
"""Methods of the contract as OpenAPI operations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.openapi.schemas import OUTPUT_ONLY, REQUIRED, Schema, Schemas, behaves, example_of
from gateway.transcode.binding import can_be_parameter
from gateway.transcode.contract import Binding, Contract, Method, message_of
from gateway.transcode.router import variables_of

Operation = dict[str, Any]

_VARIABLE = re.compile(r"\{([a-z0-9_.]+)(?:=\*)?\}")
_ERRORS = {
    "400": "The request breaks a rule; `violations` names every field.",
    "401": "No known API key.",
    "403": "The key may not do this.",
    "404": "What the request names does not exist.",
    "409": "The request meets something that exists already.",
    "429": "Too often; `Retry-After` says when to come again.",
    "503": "Something cannot be reached now; `Retry-After` says when to come again.",
}


def paths(contract: Contract, schemas: Schemas) -> dict[str, dict[str, Operation]]:
    """Return the path items of every method."""
    items: dict[str, dict[str, Operation]] = {}
    for method in contract.methods:
        for number, binding in enumerate(method.bindings):
            operation = _operation(contract, schemas, method, binding)
            operation["operationId"] = _operation_id(method, binding, number)
            items.setdefault(_path(binding), {})[binding.verb.lower()] = operation
    return items


def problem_responses() -> dict[str, Schema]:
    """Return the error responses that every operation may give."""
    return {status: problem_response(text) for status, text in _ERRORS.items()} | {
        "default": problem_response("Something went wrong.")
    }


def problem_response(description: str) -> Schema:
    """Return an error response with a problem."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {"application/problem+json": {"schema": schema}}}


def _operation_id(method: Method, binding: Binding, number: int) -> str:
    name = method.name[0].lower() + method.name[1:]
    return name if number == 0 else f"{name}By{binding.verb.capitalize()}"


def _path(binding: Binding) -> str:
    return _VARIABLE.sub(lambda found: "{" + _parameter_name(found[1]) + "}", binding.template)


def _parameter_name(field_path: str) -> str:
    """Name a path parameter by its last part: `segment.segment_id` is `segmentId`."""
    head, *rest = field_path.rpartition(".")[2].split("_")
    return head + "".join(part.capitalize() for part in rest)


def _operation(contract: Contract, schemas: Schemas, method: Method, binding: Binding) -> Operation:
    comment = contract.comments.get(method.descriptor.full_name, "")
    operation: Operation = {
        "tags": [method.package],
        "summary": _first_sentence(comment) or method.name,
        "description": f"{comment}\n\n{_who_may(method)}".strip(),
        "security": [{"bearer": [method.scope]}, {"apiKey": [method.scope]}],
    }
    parameters = [*_path_parameters(schemas, method, binding), *_query_parameters(schemas, method, binding)]
    if parameters:
        operation["parameters"] = parameters
    if binding.body:
        operation["requestBody"] = _request_body(schemas, method, binding)
    answer = schemas.ref(method.response_part(binding))
    operation["responses"] = {
        "200": {"description": "Success.", "content": {"application/json": {"schema": answer}}},
        **problem_responses(),
    }
    return operation


def _first_sentence(comment: str) -> str:
    return re.split(r"(?<=[.;:])\s", comment.replace("\n", " "), maxsplit=1)[0].rstrip(".;:")


def _who_may(method: Method) -> str:
    words = f"Needs the scope `{method.scope}`."
    if method.visitor:
        words += " A browser's write key may call it for an `anonymous_id:…` profile."
    if method.is_gathered:
        words += " Every service is asked; `unavailableServices` names those whose part is missing."
    if method.completion is not None:
        by = method.completion.method.package
        words += f" `{by}` is asked too; `unavailableServices` names it when its part is missing."
    return words


def _path_parameters(schemas: Schemas, method: Method, binding: Binding) -> Iterator[Schema]:
    for variable in variables_of(binding.template):
        field = _follow(method.descriptor.input_type, variable)
        yield _parameter(schemas, field, _parameter_name(variable), "path")


def _query_parameters(schemas: Schemas, method: Method, binding: Binding) -> Iterator[Schema]:
    if binding.body == "*":
        return
    taken = {variable.partition(".")[0] for variable in variables_of(binding.template)} | {binding.body}
    for field in method.descriptor.input_type.fields:
        if field.name not in taken and can_be_parameter(field) and not behaves(field, OUTPUT_ONLY):
            yield _parameter(schemas, field, field.json_name, "query")


def _parameter(schemas: Schemas, field: FieldDescriptor, name: str, place: str) -> Schema:
    schema = schemas.field(field)
    schema.pop("readOnly", None)
    parameter: Schema = {"name": name, "in": place, "schema": schema}
    if place == "path" or behaves(field, REQUIRED):
        parameter["required"] = True
    if description := schema.pop("description", ""):
        parameter["description"] = description
    if examples := schema.pop("examples", []):
        parameter["example"] = examples[0]
    return parameter


def _request_body(schemas: Schemas, method: Method, binding: Binding) -> Schema:
    request = method.descriptor.input_type
    if binding.body == "*":
        bound = {variable.partition(".")[0] for variable in variables_of(binding.template)}
        fields = [field for field in request.fields if field.name not in bound]
        schema = schemas.object(request, fields) if bound else schemas.ref(request)
        example = example_of(request)
    else:
        held = message_of(request.fields_by_name[binding.body])
        schema = schemas.ref(held, patch="update_mask" in request.fields_by_name)
        example = example_of(held)
    content: Schema = {"schema": schema}
    if example:
        content["example"] = example
    return {"required": True, "content": {"application/json": content}}


def _follow(descriptor: Descriptor, path: str) -> FieldDescriptor:
    *parents, last = path.split(".")
    for parent in parents:
        descriptor = message_of(descriptor.fields_by_name[parent])
    return descriptor.fields_by_name[last]
