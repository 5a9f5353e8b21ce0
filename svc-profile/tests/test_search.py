# SPDX-License-Identifier: Apache-2.0
"""Staff finds customers: through gRPC, on the index that a worker keeps."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from chassis.testing import Engines, RunningService, running
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from dangol.operations.v1 import operations_pb2
from dangol.operations.v1.operations_pb2_grpc import AccessLogServiceStub
from dangol.profile.v1 import agent_pb2 as pb
from dangol.profile.v1 import traits_pb2
from dangol.profile.v1.agent_pb2_grpc import AgentServiceStub
from dangol.profile.v1.traits_pb2_grpc import TraitServiceStub
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from svc_profile.app import build
from svc_profile.domain.search import fold
from svc_profile.settings import Settings
from svc_profile.usecases.indexing import index_some

START_US = 1_760_000_000_000_000
MINUTE_US = 60_000_000
EXACT, PREFIX, INSIDE = pb.MATCH_RANK_EXACT, pb.MATCH_RANK_PREFIX, pb.MATCH_RANK_INSIDE
numbers = itertools.count()


@pytest.fixture(scope="module", params=[{}, {"k1": SecretStr("11" * 32)}], ids=["open", "sealed"])
async def service(engines: Engines, request: pytest.FixtureRequest) -> AsyncIterator[RunningService]:
    """With and without encryption at rest: what is found is the same."""
    async with running(build, Settings, engines, encryption_keys=request.param) as service:
        yield service


def event(kind: str, *, at: int = 0, traits: Any = None, properties: Any = None, **fields: Any) -> Event:
    """Build an event `at` some minutes after the start."""
    return Event(
        type=EventType.Value(f"EVENT_TYPE_{kind.upper()}"),
        time_us=START_US + at * MINUTE_US,
        received_time_us=START_US + at * MINUTE_US,
        traits=json.dumps(traits).encode() if traits is not None else b"",
        properties=json.dumps(properties).encode() if properties is not None else b"",
        **{"source": "web", "message_id": f"m{next(numbers)}", **fields},
    )


async def indexed(service: RunningService) -> None:
    """Wait until the worker has made every entry."""
    async with asyncio.timeout(60):
        while True:
            async with service.database.snapshot() as tx:
                waiting = await tx.value("SELECT count(*) FROM search_queue")
                version = await tx.value("SELECT version FROM search_filling")
            if not waiting and version:
                return
            await asyncio.sleep(0.02)


async def collect(service: RunningService, *events: Event) -> None:
    await service.deliver(EventBatch(events=events), subject="events.collected.1")
    await indexed(service)


async def ask(service: RunningService, query: str, scopes: tuple[str, ...] = ("*",), **more: Any) -> Any:
    request = pb.SearchProfilesRequest(query=query, **more)
    return await service.stub(AgentServiceStub, scopes).SearchProfiles(request)


async def names(service: RunningService, query: str) -> list[str]:
    return [match.name for match in (await ask(service, query)).matches]


async def test_a_customer_is_found_by_everything_that_is_remembered(service: RunningService) -> None:
    """Name, e-mail, phone, order number, own id, the visitor's whole id, and the profile's id."""
    await collect(
        service,
        event("page", anonymous_id="device-4711-abcd"),
        event(
            "identify",
            at=1,
            anonymous_id="device-4711-abcd",
            user_id="member-20481",
            traits={"name": "남궁단골", "email": "Namgung@Shop.example", "phone": "010-7777-4242"},
        ),
        event("track", at=2, name="Order Completed", user_id="member-20481", properties={"order_id": "ORD-2026-00917"}),
    )
    found = {}
    for query in (
        "남궁단골", "남궁다", "ㄴㄱㄷ", "ㄷㄱ", "namgung@shop.example", "gung@sh", "4242", "010-7777",
        "+82 10-7777-4242", "ORD-2026-00917", "00917", "20481", "member-20481", "user_id:member-20481",
        "device-4711-abcd",
    ):  # fmt: skip
        answer = await ask(service, query)
        assert [match.name for match in answer.matches] == ["남궁단골"], query
        found[query] = (answer.matches[0].match.namespace, answer.matches[0].match.rank)
    assert found["남궁단골"] == ("name", EXACT)
    assert found["남궁다"] == ("name", PREFIX)
    assert found["ㄷㄱ"] == ("name", INSIDE)
    assert found["namgung@shop.example"] == ("email", EXACT)
    assert found["010-7777"] == ("phone", PREFIX)
    assert found["00917"] == ("order_id", INSIDE)
    assert found["device-4711-abcd"] == ("anonymous_id", EXACT)
    match = answer.matches[0]
    assert [(i.namespace, i.value) for i in match.identifiers] == [
        ("email", "namgung@shop.example"),
        ("phone", "+821077774242"),
        ("user_id", "member-20481"),
    ]
    assert match.last_seen_time.ToMicroseconds() == START_US + 2 * MINUTE_US
    assert [m.profile_id for m in (await ask(service, match.profile_id)).matches] == [match.profile_id]
    assert await names(service, "device-4711") == []
    assert await names(service, "남궁단추") == []


async def test_the_best_come_first_and_among_equals_who_was_seen_last(service: RunningService) -> None:
    """Page after page, each customer once."""
    people = (("Ahn Zebra", 5), ("Zebra", 1), ("Zebra Ahn", 2), ("Zebra Bae", 3), ("Bae Zebra", 9))
    for n, (name, at) in enumerate(people):
        await collect(service, event("identify", at=at, user_id=f"zebra-user-{n}", traits={"name": name}))
    expected = ["Zebra", "Zebra Bae", "Zebra Ahn", "Bae Zebra", "Ahn Zebra"]
    # Their own ids begin with it too, so the names are asked for.
    answer = await ask(service, "zebra")
    assert {match.name for match in answer.matches} == set(expected)
    assert answer.matches[0].name == "Zebra"
    answer = await ask(service, "ebra")
    assert [match.name for match in answer.matches] == ["Bae Zebra", "Ahn Zebra", "Zebra Bae", "Zebra Ahn", "Zebra"]
    pages, token = [], ""
    for _ in range(3):
        page = await ask(service, "ebra", page_size=2, page_token=token)
        pages += [match.name for match in page.matches]
        token = page.next_page_token
    assert (pages, token) == ([match.name for match in answer.matches], "")


async def test_words_may_stand_in_any_order_and_all_must_be_there(service: RunningService) -> None:
    await collect(service, event("identify", user_id="w1", traits={"firstName": "Marie", "lastName": "Quartz"}))
    assert await names(service, "quartz mar") == ["Marie Quartz"]
    assert await names(service, "quartz bob") == []


async def test_an_old_name_finds_nobody(service: RunningService) -> None:
    """The latest one by event time is the name, whatever came last."""
    await collect(service, event("identify", at=5, user_id="renamed", traits={"name": "Newname Xu"}))
    await collect(service, event("identify", at=1, user_id="renamed", traits={"name": "Oldname Xu"}))
    assert await names(service, "newname") == ["Newname Xu"]
    assert await names(service, "oldname") == []


async def test_another_policy_for_names_is_followed(service: RunningService) -> None:
    """Which statement is the name is decided anew for the past, and search follows."""
    await collect(
        service,
        event("identify", at=1, user_id="policy-1", traits={"nickname": "Firstnick"}),
        event("identify", at=2, user_id="policy-1", traits={"nickname": "Lastnick"}),
    )
    assert len((await ask(service, "lastnick")).matches) == 1
    definition = traits_pb2.TraitDefinition(name="nickname", policy=traits_pb2.TRAIT_POLICY_OLDEST)
    stub = service.stub(TraitServiceStub)
    await stub.CreateTraitDefinition(traits_pb2.CreateTraitDefinitionRequest(trait_definition=definition))
    async with asyncio.timeout(60):
        while not (await ask(service, "firstnick")).matches:
            await asyncio.sleep(0.1)
    assert not (await ask(service, "lastnick")).matches


@pytest.mark.parametrize("letter", ["값", "\ufdfa", "🍊", "x"])
async def test_a_name_without_end_is_found_by_its_beginning(service: RunningService, letter: str) -> None:
    """Some characters fold into many; the first 200 of a value can be found, whatever they are."""
    user = f"endless-{ord(letter)}"
    await collect(service, event("identify", user_id=user, traits={"name": "Q" + letter * 5_000}))
    answer = await ask(service, "q" + letter * 150)
    assert [i.value for match in answer.matches for i in match.identifiers] == [user]


async def test_who_becomes_one_person_is_found_once(service: RunningService) -> None:
    """By everything that was known of both."""
    await collect(service, event("identify", anonymous_id="q-device", traits={"name": "Quill Visitor"}))
    await collect(service, event("identify", at=1, user_id="q-user", traits={"name": "Quill Member"}))
    assert sorted(await names(service, "quill")) == ["Quill Member", "Quill Visitor"]
    await collect(service, event("page", at=2, anonymous_id="q-device", user_id="q-user"))
    assert await names(service, "quill") == ["Quill Member"]
    assert await names(service, "quill visitor") == ["Quill Member"]


async def test_a_role_without_the_right_finds_but_does_not_see(service: RunningService) -> None:
    await collect(
        service, event("identify", user_id="masked-1", traits={"name": "유가면", "email": "mask@hidden.example"})
    )
    answer = await ask(service, "mask@hidden", scopes=("agent.read",))
    match = answer.matches[0]
    assert (match.name, match.match.value) == ("유**", "m***@h***.example")
    assert [i.value for i in match.identifiers] == ["m***@h***.example", "masked-1"]


async def test_whoever_is_found_has_it_on_record(service: RunningService) -> None:
    """Whose data a search showed is known only from its answer; the access log names them all the same."""
    await collect(service, event("identify", user_id="record-1", traits={"name": "Recorded Roe"}))
    await collect(service, event("identify", user_id="record-2", traits={"name": "Recorded Poe"}))
    await ask(service, "recorded roe")
    log = service.stub(AccessLogServiceStub)
    seen = await log.ListAccesses(operations_pb2.ListAccessesRequest(profile="user_id:record-1"))
    assert [(each.caller, each.method.rpartition(".")[2]) for each in seen.accesses] == [("test", "SearchProfiles")]
    other = await log.ListAccesses(operations_pb2.ListAccessesRequest(profile="user_id:record-2"))
    assert not other.accesses


@pytest.mark.parametrize("fields", [{"query": "x"}, {"query": ""}, {"query": "ok", "page_token": "!"}])
async def test_bad_input_names_the_field(service: RunningService, fields: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(service, **fields)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert list(fields)[-1] in (caught.value.details() or "")


async def test_the_index_is_filled_anew_with_what_was_there_before(service: RunningService) -> None:
    """As after a change of how text is folded: from the fragments and the orders, in steps."""
    await collect(
        service,
        event("identify", user_id="refill-1", traits={"name": "Refill Person"}),
        event("track", name="Order Completed", user_id="refill-1", properties={"order_id": "REFILL-77"}),
    )
    async with service.database.transaction() as tx:
        await tx.execute("DELETE FROM search_entries")
        await tx.execute("UPDATE search_filling SET version = 0")
    await indexed(service)
    assert await names(service, "refill person") == ["Refill Person"]
    assert await names(service, "refill-77") == ["Refill Person"]


async def test_nothing_is_lost_when_a_worker_dies(engines: Engines) -> None:
    """What it had taken waits again, because taking and making are one transaction."""
    async with running(build, Settings, engines, roles=["rpc"]) as service:
        async with service.database.transaction() as tx:
            await tx.execute(
                "INSERT INTO fragments (fragment_id, namespace, value, first_seen_us, last_seen_us)"
                " VALUES (gen_random_uuid(), 'user_id', 'left-behind', 1, 1)"
            )
        for _ in range(2):
            async with service.database.transaction() as tx:
                await index_some(tx, 100)
        with pytest.raises(RuntimeError, match="killed"):
            await _die_half_way(service)
        while True:
            async with service.database.transaction() as tx:
                if not await index_some(tx, 100):
                    break
        assert [m.match.value for m in (await ask(service, "behind")).matches] == ["left-behind"]


async def _die_half_way(service: RunningService) -> None:
    async with service.database.transaction() as tx:
        await index_some(tx, 100)
        raise RuntimeError("killed before the commit")


LETTERS = st.sampled_from("김단골나비닭값가 aBé🍊金01-@.")
VALUES = st.lists(st.text(LETTERS, min_size=1, max_size=8), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(VALUES, st.data())
async def test_what_like_finds_search_finds(service: RunningService, values: list[str], data: st.DataObject) -> None:
    """On the real index: every customer whose name contains what is asked."""
    run = f"L{next(numbers)}"
    await collect(
        service,
        *[event("identify", user_id=f"{run}-{n}", traits={"name": f"{value}"}) for n, value in enumerate(values)],
    )
    value = data.draw(st.sampled_from(values))
    begin = data.draw(st.integers(0, len(value) - 1))
    part = value[begin : data.draw(st.integers(begin + 1, len(value)))]
    if len(fold(part)) < 2 or " " in part:
        return
    wanted = {f"{run}-{n}" for n, each in enumerate(values) if part in each}
    found: set[str] = set()
    token = ""
    while True:
        page = await ask(service, part, page_size=100, page_token=token)
        found |= {i.value for match in page.matches for i in match.identifiers if i.namespace == "user_id"}
        token = page.next_page_token
        if not token:
            break
    assert wanted <= found
