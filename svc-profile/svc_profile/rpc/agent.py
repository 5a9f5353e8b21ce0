# SPDX-License-Identifier: Apache-2.0
"""What staff works with."""

from uuid import UUID

from chassis.calls import current_caller, tell_of
from chassis.database import Database
from chassis.identity import IdentityKey
from dangol.profile.v1 import agent_pb2 as pb
from dangol.profile.v1.agent_pb2_grpc import AgentServiceServicer
from grpc.aio import ServicerContext

from chassis import clock, pages
from svc_profile.domain.search import read_query
from svc_profile.usecases import interactions
from svc_profile.usecases.searching import named_by, search
from svc_profile.usecases.timeline import list_timeline
from svc_profile.wire.interactions import (
    interaction_to_proto,
    position_of_interaction,
    read_change,
    read_choice,
    read_draft,
)
from svc_profile.wire.search import match_position, match_to_proto, position_of_match
from svc_profile.wire.timeline import entry_to_proto, position_of_entry, read_wanted

_MATCHES = 20
_ENTRIES = 50


class AgentRpc(AgentServiceServicer):
    """Serves the staff who talk with customers."""

    def __init__(self, database: Database, key: IdentityKey) -> None:
        self._database = database
        self._key = key

    async def SearchProfiles(
        self, request: pb.SearchProfilesRequest, context: ServicerContext
    ) -> pb.SearchProfilesResponse:
        """Find customers by what is remembered of them."""
        size = pages.page_size(request.page_size, default=_MATCHES)
        query = read_query(request.query)
        after = match_position(pages.decode_token(request.page_token))
        async with self._database.snapshot() as tx:
            found = await search(tx, query, named_by(query, self._key), after=after, most=size + 1)
        page, more = found[:size], found[size:]
        tell_of(UUID(bytes=hit.profile.profile) for hit in page)
        return pb.SearchProfilesResponse(
            matches=[match_to_proto(hit.match, hit.profile) for hit in page],
            next_page_token=pages.encode_token(position_of_match(page[-1].match)) if more else "",
        )

    async def ListTimeline(self, request: pb.ListTimelineRequest, context: ServicerContext) -> pb.ListTimelineResponse:
        """Return what happened with a customer, newest first."""
        size = pages.page_size(request.page_size, default=_ENTRIES)
        fragment = self._key.resolve(request.profile).bytes
        wanted = read_wanted(request, pages.decode_token(request.page_token))
        async with self._database.snapshot() as tx:
            found = await list_timeline(tx, fragment, wanted, size + 1)
        page, more = found[:size], found[size:]
        return pb.ListTimelineResponse(
            entries=[entry_to_proto(entry) for entry in page],
            next_page_token=pages.encode_token(position_of_entry(page[-1])) if more else "",
        )

    async def CreateInteraction(
        self, request: pb.CreateInteractionRequest, context: ServicerContext
    ) -> pb.CreateInteractionResponse:
        """Keep a contact with a customer."""
        fragment, draft = self._key.resolve(request.profile).bytes, read_draft(request.interaction)
        async with self._database.transaction() as tx:
            kept = await interactions.create_interaction(
                tx,
                fragment,
                draft,
                request_id=request.request_id,
                actor=current_caller().name,
                now_us=clock.to_us(clock.now()),
            )
        return pb.CreateInteractionResponse(interaction=interaction_to_proto(kept))

    async def GetInteraction(
        self, request: pb.GetInteractionRequest, context: ServicerContext
    ) -> pb.GetInteractionResponse:
        """Return one contact."""
        async with self._database.snapshot() as tx:
            kept = await interactions.get_interaction(tx, request.interaction_id)
        tell_of([UUID(bytes=kept.interaction.fragment)])
        return pb.GetInteractionResponse(interaction=interaction_to_proto(kept))

    async def UpdateInteraction(
        self, request: pb.UpdateInteractionRequest, context: ServicerContext
    ) -> pb.UpdateInteractionResponse:
        """Change a contact."""
        change = read_change(request)
        async with self._database.transaction() as tx:
            kept = await interactions.update_interaction(
                tx,
                request.interaction.interaction_id,
                change,
                actor=current_caller().name,
                now_us=clock.to_us(clock.now()),
            )
        tell_of([UUID(bytes=kept.interaction.fragment)])
        return pb.UpdateInteractionResponse(interaction=interaction_to_proto(kept))

    async def ListInteractions(
        self, request: pb.ListInteractionsRequest, context: ServicerContext
    ) -> pb.ListInteractionsResponse:
        """Return contacts with one customer or with all, newest first."""
        size = pages.page_size(request.page_size)
        of = self._key.resolve(request.profile).bytes if request.profile else None
        choice = read_choice(request, pages.decode_token(request.page_token))
        async with self._database.snapshot() as tx:
            found = await interactions.list_interactions(tx, choice, of=of, most=size + 1)
        page, more = found[:size], found[size:]
        if of is None:
            tell_of(UUID(bytes=kept.interaction.fragment) for kept in page)
        return pb.ListInteractionsResponse(
            interactions=[interaction_to_proto(kept) for kept in page],
            next_page_token=pages.encode_token(position_of_interaction(page[-1])) if more else "",
        )
