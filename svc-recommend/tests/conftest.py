# SPDX-License-Identifier: Apache-2.0
"""The running service, and short ways to say what customers do."""

import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from chassis.identity import FragmentId, Identifier, IdentityKey
from chassis.streams import RESOLVED
from chassis.testing import IDENTITY_KEY, Engines, RunningService, running
from dangol.events.v1.events_pb2 import EVENT_TYPE_TRACK, Event, EventBatch
from dangol.profile.v1.identity_pb2 import FragmentMapping, FragmentsRemapped
from dangol.recommend.v1 import recommend_pb2 as pb
from dangol.recommend.v1.recommend_pb2_grpc import RecommendServiceStub
from svc_recommend.app import build
from svc_recommend.settings import Settings
from svc_recommend.usecases.recommending import ShelfKeeper
from svc_recommend.usecases.refreshing import Refresher

KEY = IdentityKey(bytes.fromhex(IDENTITY_KEY))
START_US = 1_760_000_000_000_000
MINUTE_US = 60_000_000


class Shop:
    """A running service with customers and items."""

    def __init__(self, service: RunningService) -> None:
        self.service = service
        self.api = service.stub(RecommendServiceStub)
        self._minute = 0

    @property
    def refresher(self) -> Refresher:
        """What works neighbourhoods out; the tests run it themselves."""
        refresher = self.service.service.jobs[0].run.__self__  # type: ignore[attr-defined]
        assert isinstance(refresher, Refresher)
        return refresher

    @property
    def keeper(self) -> ShelfKeeper:
        """What keeps the shelf."""
        keeper = self.service.service.checks[0].__self__  # type: ignore[attr-defined]
        assert isinstance(keeper, ShelfKeeper)
        return keeper

    @staticmethod
    def fragment(user: str) -> FragmentId:
        """Return the fragment of a user."""
        return KEY.fragment_id(Identifier("user_id", user))

    def event(self, user: str, name: str, *items: str, minute: int | None = None, **properties: Any) -> Event:
        """Return an event; each later than the one before, unless the minute is given."""
        self._minute += 1
        moment = START_US + (self._minute if minute is None else minute) * MINUTE_US
        if len(items) == 1:
            properties["product_id"] = items[0]
        elif items:
            properties["products"] = [{"product_id": item} for item in items]
        fragment = self.fragment(user).bytes
        return Event(
            message_id=f"m{self._minute}", type=EVENT_TYPE_TRACK, source="web", user_id=user, name=name,
            time_us=moment, received_time_us=moment + 1000, properties=json.dumps(properties).encode(),
            fragment_id=fragment, profile_id=fragment,
        )  # fmt: skip

    def views(self, user: str, *items: str) -> list[Event]:
        """Return a view of each item."""
        return [self.event(user, "Product Viewed", item) for item in items]

    async def happen(self, *events: Event | Iterable[Event]) -> None:
        """Let events reach the service, one message for each argument, and be handled."""
        batches = [EventBatch(events=[each] if isinstance(each, Event) else each) for each in events]
        await self.service.deliver(*batches, subject=RESOLVED.replace("*", "0"))

    async def move(self, revision: int, **to: str) -> None:
        """Let svc-profile say that fragments of users belong to other users' profiles."""
        mappings = [
            FragmentMapping(
                fragment_id=self.fragment(user).bytes, profile_id=self.fragment(owner).bytes, revision=revision
            )
            for user, owner in to.items()
        ]
        await self.service.deliver(FragmentsRemapped(mappings=mappings))

    async def learn(self) -> None:
        """Work out every neighbourhood that is due, and let the process that answers know."""
        await self.refresher.run()
        while self.refresher.due_count:
            await self.refresher.run()
        await self.keeper.update()

    async def put(self, *items: str, **fields: Any) -> None:
        """Put items into the catalogue; an item's title is `Item <id>` unless given."""
        given = [pb.Item(**{"item_id": item, "title": f"Item {item}", **fields}) for item in items]
        await self.api.BatchUpsertItems(pb.BatchUpsertItemsRequest(items=given))

    async def recommend(self, user: str, size: int = 0, category: str = "") -> pb.RecommendItemsResponse:
        """Ask what to recommend to a user."""
        request = pb.RecommendItemsRequest(profile=f"user_id:{user}", page_size=size, category=category)
        answer: pb.RecommendItemsResponse = await self.api.RecommendItems(request)
        return answer

    async def recommended(self, user: str, size: int = 0, category: str = "") -> list[str]:
        """Return only the ids of what is recommended."""
        answer = await self.recommend(user, size, category)
        return [each.item_id for each in answer.recommendations]

    async def similar(self, item: str, size: int = 0) -> list[tuple[str, float, int]]:
        """Ask what is similar to an item."""
        answer = await self.api.ListSimilarItems(pb.ListSimilarItemsRequest(item_id=item, page_size=size))
        return [(each.item_id, round(each.similarity, 5), each.customer_count) for each in answer.items]

    async def kept(self) -> list[tuple[Any, ...]]:
        """Return all interactions as they are kept."""
        async with self.service.database.snapshot() as tx:
            return [tuple(row) for row in await tx.rows("SELECT * FROM interactions ORDER BY fragment_id, item_id")]

    async def neighbourhoods(self) -> list[tuple[Any, ...]]:
        """Return all neighbourhoods as they are kept."""
        columns = "item_id, popularity, CAST(neighbours AS text)"
        async with self.service.database.snapshot() as tx:
            rows = await tx.rows(f"SELECT {columns} FROM neighbourhoods ORDER BY item_id")
            return [tuple(row) for row in rows]

    async def forget_everything(self) -> None:
        """Start over: no customer, no item."""
        async with self.service.database.transaction() as tx:
            await tx.execute("TRUNCATE interactions, history_changes, neighbourhoods, fragment_profiles, inbox")
            await tx.execute("UPDATE refreshers SET holder = ''")


@pytest.fixture
async def shop(engines: Engines) -> AsyncIterator[Shop]:
    """A new service for each test; nothing refreshes by itself, so that tests say when."""
    async with running(build, Settings, engines, roles=("rpc", "consumers"), tolerance=0) as service:
        yield Shop(service)


@pytest.fixture(scope="session")
async def empty_shop(engines: Engines) -> AsyncIterator[Shop]:
    """One service for all tests that leave it empty."""
    async with running(build, Settings, engines, roles=("rpc",)) as service:
        yield Shop(service)
