# SPDX-License-Identifier: Apache-2.0
"""What another service knows about an answer, put into it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from google.protobuf.message import Message
from grpc.aio import AioRpcError

from gateway.transcode.contract import UNAVAILABLE_SERVICES, Completion


async def complete(completion: Completion, answer: Message, ask: Callable[[Message], Awaitable[Message]]) -> None:
    """Ask what completes an answer, and put it in.

    The answer holds without it: whatever keeps the other service from saying, the answer stands and names that service.
    """
    question = completion.method.request_class()
    getattr(question, completion.hand_on).MergeFrom(getattr(answer, completion.hand_on))
    if not getattr(question, completion.hand_on):
        return
    answer.ClearField(completion.hand_on)
    try:
        said = await ask(question)
    except AioRpcError:
        getattr(answer, UNAVAILABLE_SERVICES).append(completion.method.package)
        return
    elements: Any = answer
    for name in completion.into:
        elements = getattr(elements, name)
    _put_in(elements, getattr(said, completion.source), completion.key)


def _put_in(elements: Iterable[Message], given: Iterable[Message], key: str) -> None:
    """Replace the repeated fields of elements by those that are given for the same key."""
    found = {getattr(each, key): each for each in given}
    for element in elements:
        source = found.get(getattr(element, key))
        for field in source.DESCRIPTOR.fields if source is not None else ():
            if field.is_repeated:
                element.ClearField(field.name)
                getattr(element, field.name).MergeFrom(getattr(source, field.name))
