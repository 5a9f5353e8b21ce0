# SPDX-License-Identifier: Apache-2.0
"""One question to every service: asked at once, answered as one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from chassis.errors import Invalid
from chassis.pages import decode_token, encode_token
from google.protobuf.message import Message
from grpc import StatusCode
from grpc.aio import AioRpcError

from gateway.transcode.contract import UNAVAILABLE_SERVICES, Method

Ask = Callable[[str, Message], Awaitable[Message]]
"""Sends a request to a service, by its short name; raises `AioRpcError`."""

_CALLERS_FAULT = frozenset(
    {
        StatusCode.INVALID_ARGUMENT,
        StatusCode.OUT_OF_RANGE,
        StatusCode.FAILED_PRECONDITION,
        StatusCode.ALREADY_EXISTS,
        StatusCode.UNAUTHENTICATED,
        StatusCode.PERMISSION_DENIED,
    }
)
"""What one service refuses, all do; anything else is that service's own trouble."""


async def gather(method: Method, request: Message, names: Sequence[str], ask: Ask) -> Message:
    """Ask all services and merge what they answer.

    A service that is away, or fails, makes the answer partial, and the answer says so. One that does not know what is
    asked for has nothing to add, unless none knows it.
    """
    requests = _requests(request, names)
    answers: dict[str, Message | AioRpcError] = {}
    if method.gather_first in requests:
        first = answers[method.gather_first] = await _attempt(method.gather_first, requests, ask)
        if isinstance(first, Message):
            for name in requests.keys() - answers.keys():
                _hand_on(first, requests[name])
    left = [name for name in requests if name not in answers]
    answers.update(zip(left, await asyncio.gather(*(_attempt(name, requests, ask) for name in left)), strict=True))
    found = {name: answer for name in requests if isinstance(answer := answers[name], Message)}
    errors = {name: answer for name in requests if isinstance(answer := answers[name], AioRpcError)}
    away = {name: error for name, error in errors.items() if error.code() is not StatusCode.NOT_FOUND}
    if not found:
        # Somebody who is away may know it: only when all say that there is nothing, there is nothing.
        raise next(iter((away or errors).values()))
    merged = _merged(method, list(found.values()))
    getattr(merged, UNAVAILABLE_SERVICES).extend(away)
    if "next_page_token" in merged.DESCRIPTOR.fields_by_name:
        waiting = {name: getattr(requests[name], "page_token", "") for name in away}
        merged.next_page_token = _next_page(found, waiting)  # type: ignore[attr-defined]
    return merged


def _requests(request: Message, names: Sequence[str]) -> dict[str, Message]:
    """Give each service its own request, with its own place in the list when a page is asked for."""
    token = getattr(request, "page_token", "")
    if not token:
        return {name: _copy(request) for name in names}
    positions = decode_token(token)
    if not set(positions) <= set(names) or not all(isinstance(place, str) for place in positions.values()):
        raise Invalid.field("page_token", "must be the next_page_token of an earlier answer")
    requests = {name: _copy(request) for name in names if name in positions}
    for name, each in requests.items():
        each.page_token = positions[name]  # type: ignore[attr-defined]
    return requests


def _copy(request: Message) -> Message:
    copy = type(request)()
    copy.CopyFrom(request)
    return copy


async def _attempt(name: str, requests: Mapping[str, Message], ask: Ask) -> Message | AioRpcError:
    try:
        return await ask(name, requests[name])
    except AioRpcError as error:
        if error.code() in _CALLERS_FAULT:
            raise
        return error


def _hand_on(answer: Message, request: Message) -> None:
    """Put what one service answers into the request to another, where both have a repeated field of the same type."""
    for field, values in answer.ListFields():
        wanted = request.DESCRIPTOR.fields_by_name.get(field.name)
        if wanted and wanted.is_repeated and field.is_repeated and wanted.message_type is field.message_type:
            getattr(request, field.name).MergeFrom(values)


def _merged(method: Method, answers: Sequence[Message]) -> Message:
    merged = method.response_class()
    for answer in answers:
        merged.MergeFrom(answer)
    _prefer_first(merged, answers)
    return merged


def _prefer_first(merged: Message, answers: Sequence[Message]) -> None:
    """Let the first service that gives a value decide it, where there is room for one only."""
    for answer in reversed(answers):
        for field, value in answer.ListFields():
            if field.is_repeated:
                continue
            if field.message_type is None:
                setattr(merged, field.name, value)
            else:
                inner = [getattr(each, field.name) for each in answers if each.HasField(field.name)]
                _prefer_first(getattr(merged, field.name), inner)


def _next_page(found: Mapping[str, Message], waiting: Mapping[str, str]) -> str:
    """Pack where each service goes on; who was away is asked again, for as long as others still have pages."""
    positions = {name: answer.next_page_token for name, answer in found.items()}  # type: ignore[attr-defined]
    more = {name: token for name, token in positions.items() if token}
    return encode_token({**more, **waiting}) if more else ""
