# SPDX-License-Identifier: Apache-2.0
"""What svc-recommend answers."""

from collections.abc import Mapping

from chassis.clock import now
from chassis.consent import impersonal
from chassis.database import Database
from chassis.identity import IdentityKey
from dangol.operations.v1.operations_pb2 import TraceEventRequest, TraceEventResponse
from dangol.recommend.v1 import recommend_pb2 as pb
from dangol.recommend.v1.recommend_pb2_grpc import RecommendServiceServicer
from grpc.aio import ServicerContext

from chassis import pages
from svc_recommend import wire
from svc_recommend.domain.interactions import EventWeight, taught
from svc_recommend.domain.items import ItemId
from svc_recommend.domain.ranking import Taste
from svc_recommend.usecases import catalogue, learning, recommending
from svc_recommend.usecases.recommending import ShelfKeeper

_RECOMMENDATIONS = 20


class RecommendRpc(RecommendServiceServicer):
    """Keeps the catalogue and recommends from it."""

    def __init__(self, database: Database, key: IdentityKey, keeper: ShelfKeeper, taste: Taste) -> None:
        self._database = database
        self._key = key
        self._keeper = keeper
        self._taste = taste

    async def BatchUpsertItems(
        self, request: pb.BatchUpsertItemsRequest, context: ServicerContext
    ) -> pb.BatchUpsertItemsResponse:
        """Create or replace items."""
        items = wire.items_from_proto(request.items)
        async with self._database.transaction() as tx:
            upserted = await catalogue.upsert_items(tx, items, now())
        await self._keeper.update()
        return pb.BatchUpsertItemsResponse(created_count=upserted.created_count, updated_count=upserted.updated_count)

    async def GetItem(self, request: pb.GetItemRequest, context: ServicerContext) -> pb.GetItemResponse:
        """Return one item."""
        async with self._database.snapshot() as tx:
            item = await catalogue.get_item(tx, ItemId(request.item_id))
        return pb.GetItemResponse(item=wire.item_to_proto(item))

    async def ListItems(self, request: pb.ListItemsRequest, context: ServicerContext) -> pb.ListItemsResponse:
        """Return items by id."""
        size = pages.page_size(request.page_size)
        after = wire.page_start(pages.decode_token(request.page_token))
        async with self._database.snapshot() as tx:
            items = await catalogue.list_items(tx, after=after, category=request.category, most=size + 1)
        page, more = items[:size], items[size:]
        return pb.ListItemsResponse(
            items=[wire.item_to_proto(item) for item in page],
            next_page_token=pages.encode_token({"after": page[-1].item_id}) if more else "",
        )

    async def DeleteItem(self, request: pb.DeleteItemRequest, context: ServicerContext) -> pb.DeleteItemResponse:
        """Take an item out of the catalogue."""
        async with self._database.transaction() as tx:
            await catalogue.delete_item(tx, ItemId(request.item_id))
        await self._keeper.update()
        return pb.DeleteItemResponse()

    async def RecommendItems(
        self, request: pb.RecommendItemsRequest, context: ServicerContext
    ) -> pb.RecommendItemsResponse:
        """Recommend to one customer."""
        fragment_id = self._key.resolve(request.profile)
        async with self._database.snapshot() as tx:
            profile_id, slate = await recommending.recommend_items(
                tx,
                self._keeper.shelf,
                fragment_id,
                size=pages.page_size(request.page_size, _RECOMMENDATIONS),
                category=request.category,
                taste=self._taste,
                is_impersonal=impersonal(),
            )
        return wire.slate_to_proto(profile_id, slate)

    async def ListSimilarItems(
        self, request: pb.ListSimilarItemsRequest, context: ServicerContext
    ) -> pb.ListSimilarItemsResponse:
        """Return the items close to an item."""
        size = pages.page_size(request.page_size, _RECOMMENDATIONS)
        found = recommending.list_similar_items(self._keeper.shelf, ItemId(request.item_id), size)
        return pb.ListSimilarItemsResponse(items=wire.similar_to_proto(found))


class RecommendTrace:
    """Tells which interactions with items an event adds to."""

    def __init__(self, database: Database, weights: Mapping[str, EventWeight]) -> None:
        self._database = database
        self._weights = weights

    async def __call__(self, request: TraceEventRequest) -> TraceEventResponse:
        """Answer the truth call; of an event that svc-profile does not know, nothing is known here."""
        found = [
            (event, each)
            for event in request.events
            if len(event.fragment_id) == 16
            for each in taught(self._weights, event.name, wire.properties_of(event))
        ]
        async with self._database.snapshot() as tx:
            known = await learning.fed(tx, [(event.fragment_id, item_id) for event, (item_id, _, _) in found])
        return TraceEventResponse(
            steps=[wire.trace_to_proto(event, each) for event, each in found if (event.fragment_id, each[0]) in known]
        )
