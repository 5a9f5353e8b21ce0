# SPDX-License-Identifier: Apache-2.0
"""What the running service answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from chassis.testing import Engines, running
from dangol.recommend.v1 import recommend_pb2 as pb
from dangol.recommend.v1.recommend_pb2_grpc import RecommendServiceStub
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from svc_recommend.app import build
from svc_recommend.settings import Settings

if TYPE_CHECKING:
    from .conftest import Shop


def violated(error: grpc.aio.AioRpcError) -> list[str]:
    """Return the fields that an error names."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    bad = error_details_pb2.BadRequest()
    for detail in status.details if status else ():
        if detail.Unpack(bad):
            return [violation.field for violation in bad.field_violations]
    return []


def items(*ids: str, **fields: Any) -> pb.BatchUpsertItemsRequest:
    given = [pb.Item(**{"item_id": item, "title": f"Item {item}", **fields}) for item in ids]
    return pb.BatchUpsertItemsRequest(items=given)


async def test_the_catalogue_keeps_what_was_written(shop: Shop) -> None:
    """Everything about an item comes back, and writing it again replaces it."""
    item = pb.Item(
        item_id="감귤/5kg", title="제주 감귤 5kg", categories=["food", "과일"], price=29000.5, currency="KRW",
        url="https://shop.example/a", image_url="https://shop.example/a.png",
    )  # fmt: skip
    item.attributes.update({"color": "주황", "size": {"kg": 5}, "tags": ["a", None, True], "empty": {}})
    answer = await shop.api.BatchUpsertItems(pb.BatchUpsertItemsRequest(items=[item]))
    assert (answer.created_count, answer.updated_count) == (1, 0)
    found = (await shop.api.GetItem(pb.GetItemRequest(item_id="감귤/5kg"))).item
    assert found.updated_time.seconds > 0
    found.ClearField("updated_time")
    assert found == item
    answer = await shop.api.BatchUpsertItems(items("감귤/5kg", "new", title="Other"))
    assert (answer.created_count, answer.updated_count) == (1, 1)
    assert (await shop.api.GetItem(pb.GetItemRequest(item_id="감귤/5kg"))).item.title == "Other"


async def test_items_come_in_pages_by_id(shop: Shop) -> None:
    """Every item once, of one category when one is named."""
    await shop.put(*(f"i{number}" for number in range(7)), categories=["food"])
    await shop.put("other", categories=["toys", "food"])
    seen: list[list[str]] = []
    token = ""
    while token or not seen:
        page = await shop.api.ListItems(pb.ListItemsRequest(page_size=3, page_token=token, category="food"))
        seen.append([item.item_id for item in page.items])
        token = page.next_page_token
    assert seen == [["i0", "i1", "i2"], ["i3", "i4", "i5"], ["i6", "other"]]
    toys = await shop.api.ListItems(pb.ListItemsRequest(category="toys"))
    assert [item.item_id for item in toys.items] == ["other"]
    assert not (await shop.api.ListItems(pb.ListItemsRequest(category="nothing\x00"))).items


async def test_a_deleted_item_is_gone_and_can_come_back_as_new(shop: Shop) -> None:
    await shop.put("a", "b")
    await shop.api.DeleteItem(pb.DeleteItemRequest(item_id="a"))
    for call, request in (
        (shop.api.GetItem, pb.GetItemRequest(item_id="a")),
        (shop.api.DeleteItem, pb.DeleteItemRequest(item_id="a")),
        (shop.api.ListSimilarItems, pb.ListSimilarItemsRequest(item_id="a")),
        (shop.api.GetItem, pb.GetItemRequest(item_id="nul\x00")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(request)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert [item.item_id for item in (await shop.api.ListItems(pb.ListItemsRequest())).items] == ["b"]
    answer = await shop.api.BatchUpsertItems(items("a"))
    assert (answer.created_count, answer.updated_count) == (1, 0)


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (items(*(f"i{number}" for number in range(1001))), ["items"]),
        (items("a", "b", "a"), ["items[2].item_id"]),
        (items("a", price=-1), ["items[0].price"]),
        (items("a", price=float("nan")), ["items[0].price"]),
        (items("a", price=float("inf")), ["items[0].price"]),
        (items("a", currency="won"), ["items[0].currency"]),
        (items("a", title=""), ["items[0].title"]),
        (items("x" * 201), ["items[0].item_id"]),
        (items("a", title="nul\x00"), ["items[0].title"]),
        (items("a", categories=["", "b"]), ["items[0].categories[0]"]),
        (pb.BatchUpsertItemsRequest(), ["items"]),
    ],
)
async def test_a_bad_batch_is_refused_as_a_whole(
    empty_shop: Shop, request_: pb.BatchUpsertItemsRequest, fields: list[str]
) -> None:
    """The error names the item and the field; nothing is written."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await empty_shop.api.BatchUpsertItems(request_)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert violated(caught.value) == fields
    assert not (await empty_shop.api.ListItems(pb.ListItemsRequest())).items


@pytest.mark.parametrize("profile", ["", "nobody", "user_id:", "prf_short", "user_id:null"])
async def test_a_reference_that_is_none_is_refused(empty_shop: Shop, profile: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await empty_shop.api.RecommendItems(pb.RecommendItemsRequest(profile=profile))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert violated(caught.value) == ["profile"]


@pytest.mark.parametrize("size", [-1, 101])
async def test_a_size_out_of_range_is_refused(empty_shop: Shop, size: int) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await empty_shop.recommend("u1", size)
    assert violated(caught.value) == ["page_size"]


async def test_a_token_of_something_else_is_refused(empty_shop: Shop) -> None:
    for token in ("rubbish", "eyJhZnRlciI6IDF9"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await empty_shop.api.ListItems(pb.ListItemsRequest(page_token=token))
        assert violated(caught.value) == ["page_token"]


async def test_reading_needs_its_scope(empty_shop: Shop) -> None:
    api = empty_shop.service.stub(RecommendServiceStub, scopes=["recommend.write"])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await api.RecommendItems(pb.RecommendItemsRequest(profile="user_id:u1"))
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED


async def test_another_process_that_answers_hears_of_the_catalogue(shop: Shop, engines: Engines) -> None:
    """A replica that starts later reads everything, also what was deleted."""
    await shop.put("a", "b", "c")
    await shop.api.DeleteItem(pb.DeleteItemRequest(item_id="b"))
    await shop.happen(shop.views("u1", "a", "b", "c"))
    await shop.learn()
    name = shop.service.database.name
    async with running(build, Settings, engines, roles=("rpc",), postgres_database=name) as replica:
        keeper = replica.service.checks[0].__self__  # type: ignore[attr-defined]
        await keeper.update()
        answer = await replica.stub(RecommendServiceStub).RecommendItems(
            pb.RecommendItemsRequest(profile="user_id:nobody")
        )
    assert sorted(each.item_id for each in answer.recommendations) == ["a", "c"]
