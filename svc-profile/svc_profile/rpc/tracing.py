# SPDX-License-Identifier: Apache-2.0
"""svc-profile's part of the truth call."""

from collections.abc import Collection
from uuid import UUID

from chassis.accesses import Access, AccessLog
from chassis.calls import current_caller
from chassis.consent import GRANTED
from chassis.database import Database
from chassis.identity import FragmentId
from dangol.operations.v1.operations_pb2 import TraceEventRequest, TraceEventResponse
from dangol.options.v1.options_pb2 import PURPOSE_SERVICE

from svc_profile.domain.events import FragmentKey, Namer
from svc_profile.domain.fragments import storable_text
from svc_profile.usecases.tracing import trace
from svc_profile.wire.tracing import traces_to_proto


class ProfileTrace:
    """Tells whether an event was taken, whose it is, and what was learnt from it."""

    def __init__(self, database: Database, namer: Namer, known_sources: Collection[str]) -> None:
        self._database = database
        self._log = AccessLog(database)
        self._namer = namer
        self._known_sources = known_sources

    async def __call__(self, request: TraceEventRequest) -> TraceEventResponse:
        """Answer the truth call."""
        message_id, source = storable_text(request.message_id), storable_text(request.source)
        async with self._database.snapshot() as tx:
            traces = await trace(tx, self._namer, message_id, source=source, known_sources=self._known_sources)
        # The door knows that somebody asked; whom about, only the answer tells.
        for each in traces.taken:
            if each.fragment is not None:
                await self._log.write(_access(each.fragment))
        return traces_to_proto(request.message_id, traces)


def _access(fragment: FragmentKey) -> Access:
    return Access(
        current_caller().name,
        "dangol.operations.v1.TraceService.TraceEvent",
        PURPOSE_SERVICE,
        FragmentId(UUID(bytes=fragment)),
        GRANTED,
        "",
    )
