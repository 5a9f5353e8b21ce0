# SPDX-License-Identifier: Apache-2.0
"""What stands behind the door of a method that uses personal data: the customer's consent, and the access log."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any
from uuid import UUID

from google.protobuf.message import Message
from opentelemetry import trace

from chassis import telemetry
from chassis.accesses import Access, AccessLog
from chassis.calls import telling
from chassis.consent import DENIED, GRANTED, IMPERSONAL, Use, answering, missing, refused
from chassis.database import Database
from chassis.identity import FragmentId, IdentityKey
from chassis.settings import ServiceSettings
from chassis.together import Together
from chassis.tokens import Caller

_OUTCOMES: Mapping[int, str] = {GRANTED: "granted", DENIED: "denied", IMPERSONAL: "impersonal"}


class Gate:
    """Decides about calls that use personal data, and writes each of them down."""

    def __init__(self, settings: ServiceSettings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._log = AccessLog(database)
        self._refusing = Together(self._refused)

    async def pass_through(
        self, use: Use, method: str, caller: Caller, request: Message, call: Callable[[], Awaitable[Any]]
    ) -> Any:
        """Answer a call, unless the customer's consent is missing; either way it is on record before the answer."""
        fragment = self._fragment(use.reference(request))
        outcome = await self._outcome(use, fragment)
        telemetry.ACCESSES.labels(method, _OUTCOMES[outcome]).inc()
        access = Access(caller.name, method, use.purpose, fragment, outcome, _trace_id())
        if outcome == DENIED:
            await self._log.write(access)
            raise missing(use)
        written = asyncio.ensure_future(self._log.write(access))
        try:
            with answering(outcome), telling() as customers:
                answer = await call()
        finally:
            await written
        # Of whom an answer tells is known only when it is there; all of them share one INSERT.
        found = [replace(access, fragment_id=FragmentId(customer)) for customer in dict.fromkeys(customers)]
        await asyncio.gather(*map(self._log.write, found))
        return answer

    def _fragment(self, reference: str) -> FragmentId | None:
        return self._key.resolve(reference) if reference else None

    async def _outcome(self, use: Use, fragment: FragmentId | None) -> int:
        if fragment is None or not use.is_gated:
            return GRANTED
        if not await self._refusing.answer((use.purpose, fragment)):
            return GRANTED
        return IMPERSONAL if use.is_impersonal_without else DENIED

    async def _refused(self, asked: Sequence[tuple[int, FragmentId]]) -> Sequence[bool]:
        """Look up for calls at the same time whose customers have refused what for."""
        refusals: set[tuple[int, UUID]] = set()
        async with self._database.snapshot() as tx:
            for purpose in {purpose for purpose, _ in asked}:  # hardly ever more than one
                fragments = {fragment for each, fragment in asked if each == purpose}
                refusals |= {(purpose, fragment) for fragment in await refused(tx, fragments, purpose)}
        return [each in refusals for each in asked]

    @cached_property
    def _key(self) -> IdentityKey:
        return self._settings.identity()


def _trace_id() -> str:
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""
