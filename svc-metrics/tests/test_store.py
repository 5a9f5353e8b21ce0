# SPDX-License-Identifier: Apache-2.0
"""The tables and the queries, on the real engine, against plain Python."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from random import Random
from uuid import UUID, uuid4

import pytest
from chassis.errors import ResourceExhausted, Unavailable
from chassis.identity import FragmentId, ProfileId
from clickhouse_connect.driver.exceptions import DatabaseError
from svc_metrics import wire
from svc_metrics.domain import EVENT_SCHEMA, DayRange, FunnelQuestion, KpiSeries, Mapping, Membership
from svc_metrics.store import ClickHouse, Embedded, Limits
from svc_metrics.usecases import Stores, query_kpis

from .histories import (
    CHECKOUT,
    COMPLETED,
    NAMES,
    PRODUCT_ADDED,
    PRODUCT_VIEWED,
    Happening,
    batch_of,
    expected_kpis,
    expected_levels,
    moment,
    random_history,
    set_of,
)

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


async def append(stores: Stores, history: Sequence[Happening], *, sequence: int = 1) -> None:
    """Insert a history as one batch."""
    delivery = batch_of((happening.event() for happening in history), sequence)
    await stores.events.append(wire.event_columns(wire.events_of([delivery])), token=wire.insert_token([delivery]))


async def learn(stores: Stores, profile_of: dict[UUID, UUID], revision: int = 1) -> None:
    """Let fragments belong to profiles."""
    await stores.people.learn_mappings([Mapping(FragmentId(f), ProfileId(p), revision) for f, p in profile_of.items()])


async def enter(stores: Stores, segment: str, members: set[UUID], *, revision: int = 1, member: bool = True) -> None:
    """Let profiles enter or leave a segment."""
    await stores.people.learn_memberships(
        [Membership(f"seg_{segment}", segment, ProfileId(p), member, revision, 1_000 + revision) for p in members]
    )


def merges_of(random: Random, history: Sequence[Happening]) -> dict[UUID, UUID]:
    """Let about half of the fragments belong to one of ten others."""
    fragments = sorted({h.fragment_id for h in history})
    return {f: random.choice(fragments[:10]) for f in fragments[10:] if random.random() < 0.5}


@pytest.mark.parametrize(
    ("seed", "zone", "first", "last"),
    [
        (1, "Asia/Seoul", "2026-11-01", "2026-11-21"),
        (2, "America/New_York", "2026-10-25", "2026-11-08"),  # clocks go back on 1 November
        (3, "Europe/London", "2026-03-22", "2026-04-04"),  # clocks go forward on 29 March
        (4, "Asia/Beirut", "2026-03-22", "2026-04-04"),  # the midnight of 29 March does not exist
        (5, "Asia/Kolkata", "2026-01-01", "2026-01-01"),
        (6, "Pacific/Kiritimati", "2026-02-26", "2026-03-02"),  # UTC+14
        (7, "America/St_Johns", "2006-10-20", "2006-11-05"),  # clocks went back at 00:01, into the day before
    ],
)
async def test_key_figures_equal_a_plain_computation(
    stores: Stores, seed: int, zone: str, first: str, last: str
) -> None:
    """Days, distinct customers, orders, money and ratios hold with duplicates, merges, segments and any zone."""
    random = Random(seed)
    margin = timedelta(days=3)
    history = random_history(
        random,
        count=1500,
        customers=80,
        first=(datetime.fromisoformat(first) - margin).isoformat(),
        last=(datetime.fromisoformat(last) + margin).isoformat(),
    )
    profile_of = merges_of(random, history)
    profiles = sorted({profile_of.get(h.fragment_id, h.fragment_id) for h in history})
    members = set(random.sample(profiles, len(profiles) // 3))
    await append(stores, history[:900] + history[100:300], sequence=1)
    await append(stores, history[600:], sequence=2)
    await learn(stores, profile_of)
    await enter(stores, "loyal", members)
    days = DayRange.of(first, last, zone, NOW)
    for segment, only in (("", None), ("loyal", members)):
        for currency in ("KRW", "USD"):
            series = await query_kpis(stores, days, segment=segment, currency=currency)
            each, total = expected_kpis(
                history, profile_of, days=days.days(), zone=zone, currency=currency, members=only
            )
            assert series == KpiSeries(days, currency, each, total)


async def test_the_most_frequent_currency_is_answered_when_none_is_asked_for(stores: Stores) -> None:
    """Nothing at all is answered in won."""
    days = DayRange.of("2026-11-01", "2026-11-02", "", NOW)
    assert (await query_kpis(stores, days, segment="", currency="")).currency == "KRW"
    at = moment("2026-11-01T12:00:00")
    await append(
        stores,
        [
            Happening(uuid4(), at, COMPLETED, f"m{n}", Decimal(10), currency)
            for n, currency in enumerate(("USD", "EUR", "EUR"))
        ],
    )
    series = await query_kpis(stores, days, segment="", currency="")
    assert (series.currency, series.total.orders) == ("EUR", 3)
    assert series.total.revenue == 20
    assert series.total.average_order_value == 10


async def test_an_empty_store_answers_zeros_for_every_day(stores: Stores) -> None:
    """No day is missing and no ratio is made up."""
    series = await query_kpis(stores, DayRange.of("2026-02-27", "2026-03-02", "", NOW), segment="", currency="KRW")
    assert [str(day.date) for day in series.days] == ["2026-02-27", "2026-02-28", "2026-03-01", "2026-03-02"]
    assert {(day.events, day.conversion, day.average_order_value) for day in series.days} == {(0, None, None)}


@pytest.mark.parametrize("seed", range(6))
async def test_a_funnel_equals_trying_every_chain_of_events(stores: Stores, seed: int) -> None:
    """Repeated steps, repeated events, shared moments, short windows, duplicates and merges are all counted right."""
    random = Random(seed)
    history = random_history(
        random, count=600, customers=60, first="2026-11-03T00:00:00", last="2026-11-03T00:00:00.000090"
    )
    profile_of = merges_of(random, history)
    await append(stores, history[:400], sequence=1)
    await append(stores, history[300:], sequence=2)
    await learn(stores, profile_of)
    days = DayRange.of("2026-11-01", "2026-11-05", "Asia/Seoul", NOW)
    for _ in range(8):
        steps = tuple(random.choice(NAMES[:4]) for _ in range(random.randrange(2, 6)))
        window = timedelta(microseconds=random.choice((1, 5, 20, 60, 200)))
        levels = await stores.figures.funnel(FunnelQuestion(steps, window, days), segment_id=None)
        assert levels == expected_levels(history, profile_of, steps, window // timedelta(microseconds=1))


async def test_a_funnel_may_have_twenty_steps_and_weeks(stores: Stores) -> None:
    """The longest question is answered, and the window's last moment still counts."""
    steps = (PRODUCT_VIEWED, PRODUCT_ADDED) * 10
    start = moment("2026-11-01T00:00:00")
    gap = 86_400_000_000
    customer = uuid4()
    await append(stores, [Happening(customer, start + n * gap, name, f"m{n}") for n, name in enumerate(steps)])
    days = DayRange.of("2026-10-25", "2026-11-25", "UTC", NOW)
    enough = FunnelQuestion(steps, timedelta(days=19), days)
    assert await stores.figures.funnel(enough, segment_id=None) == {20: 1}
    too_short = FunnelQuestion(steps, timedelta(days=19, microseconds=-1), days)
    assert await stores.figures.funnel(too_short, segment_id=None) == {19: 1}


async def test_a_merge_and_a_split_change_figures_of_the_past(stores: Stores) -> None:
    """Events are never rewritten; the mapping with the highest revision decides, in whatever order it comes."""
    web, app, other = uuid4(), uuid4(), uuid4()
    at = moment("2026-11-10T03:00:00")
    await append(
        stores,
        [
            Happening(web, at, PRODUCT_VIEWED, "m1"),
            Happening(app, at + 5, COMPLETED, "m2"),
            Happening(other, at, "page", "m3"),
        ],
    )
    days = DayRange.of("2026-11-10", "2026-11-10", "", NOW)
    question = FunnelQuestion((PRODUCT_VIEWED, COMPLETED), timedelta(hours=1), days)

    async def figures() -> tuple[int, dict[int, int]]:
        series = await query_kpis(stores, days, segment="", currency="KRW")
        return series.total.active_customers, await stores.figures.funnel(question, segment_id=None)

    assert await figures() == (3, {0: 1, 1: 1})
    await learn(stores, {app: web}, revision=2)
    assert await figures() == (2, {2: 1})
    await learn(stores, {app: app}, revision=5)
    await learn(stores, {app: other}, revision=4)
    assert await figures() == (3, {0: 1, 1: 1})


async def test_the_fragments_of_a_profile_follow_the_newest_mapping(stores: Stores) -> None:
    """A profile has its own fragment while nobody says otherwise, and loses what moved on."""
    a, b, c = (FragmentId(uuid4()) for _ in range(3))
    await append(stores, [Happening(a, moment("2026-11-10"), "page", "m1")])
    assert await stores.people.profile_of(b) is None
    assert await stores.people.profile_of(a) == a
    await learn(stores, {b: a, c: a}, revision=2)
    assert await stores.people.profile_of(b) == a
    assert set(await stores.people.fragments_of(ProfileId(a))) == {a, b, c}
    await learn(stores, {a: b, b: b}, revision=3)
    assert set(await stores.people.fragments_of(ProfileId(b))) == {a, b}
    assert set(await stores.people.fragments_of(ProfileId(a))) == {c}


async def test_the_newest_revision_of_a_membership_decides(stores: Stores) -> None:
    """Leaving, late news, renaming and deletion, in any order of arrival."""
    ana, bora = uuid4(), uuid4()
    at = moment("2026-11-10T03:00:00")
    await append(stores, [Happening(f, at, "page", f"m{n}") for n, f in enumerate((ana, bora))])
    days = DayRange.of("2026-11-10", "2026-11-10", "", NOW)

    async def active(segment: str) -> int:
        return (await query_kpis(stores, days, segment=segment, currency="KRW")).total.active_customers

    await enter(stores, "loyal", {ana, bora}, revision=2)
    await enter(stores, "loyal", {ana}, revision=3, member=False)
    await enter(stores, "loyal", {ana}, revision=1)
    assert await active("loyal") == 1
    renamed = Membership("seg_loyal", "단골", ProfileId(ana), True, 9, 5_000)
    await stores.people.learn_memberships([renamed])
    assert await stores.people.segment_id("loyal") is None
    assert await active("단골") == 2
    await stores.people.forget_segments([("seg_loyal", "단골")])
    await stores.people.learn_memberships([renamed])
    assert await stores.people.segment_id("단골") is None


async def test_an_event_counts_once_in_whatever_batches_it_comes(stores: Stores, clickhouse: ClickHouse) -> None:
    """The same batch is dropped by its token, the same event in another batch when it is read."""
    history = random_history(Random(9), count=200, customers=20, first="2026-11-01", last="2026-11-20")
    await append(stores, history, sequence=1)
    await append(stores, history, sequence=1)
    assert await clickhouse.rows("SELECT count() FROM events") == [(200,)]
    for number in range(4):
        await append(stores, history[number * 40 :], sequence=2 + number)
    names = await stores.events.names(100)
    assert sum(name.count for name in names) == 200
    assert {name.name for name in names} == {h.name for h in history}
    assert [name.count for name in names] == sorted((name.count for name in names), reverse=True)
    pages = [h.time_us for h in set_of(history) if h.name == "page"]
    page = next(name for name in names if name.name == "page")
    assert (page.count, page.first_seen_us, page.last_seen_us) == (len(pages), min(pages), max(pages))


async def test_a_timeline_pages_through_ties_without_loss(stores: Stores) -> None:
    """Newest first over all fragments, exact to the microsecond, each event once."""
    history = random_history(Random(4), count=300, customers=3, first="2026-11-01", last="2026-11-02")
    fragments = [FragmentId(f) for f in {h.fragment_id for h in history}][:2]
    await append(stores, history, sequence=1)
    await append(stores, history[50:], sequence=2)
    seen, before = [], None
    while page := await stores.events.timeline(fragments, before=before, limit=7):
        seen += page
        before = page[-1].position
    mine = [h for h in history if h.fragment_id in fragments]
    assert sorted(event.message_id for event in seen) == sorted(h.message_id for h in mine)
    times = [event.position.event_time_us for event in seen]
    assert times == sorted((h.time_us for h in mine), reverse=True)


async def test_a_batch_may_span_many_years(stores: Stores) -> None:
    """An import of history is one batch as any other, also with a client whose clock is absurd."""
    history = [
        Happening(uuid4(), moment(f"{year}-{month:02}-03"), "page", f"{year}-{month}")
        for year in range(2015, 2026)
        for month in range(1, 13)
    ]
    broken_clocks = [Happening(uuid4(), at, "page", f"at {at}") for at in (-(2**62), 2**62)]
    await append(stores, history + broken_clocks)
    assert sum(name.count for name in await stores.events.names(10)) == len(history) + 2


async def test_the_wire_and_the_table_have_the_same_columns(clickhouse: ClickHouse) -> None:
    """One spelling from protobuf to SQL."""
    rows = await clickhouse.rows(
        "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = 'events' AND default_kind = ''"
    )
    assert {row[0] for row in rows} == set(EVENT_SCHEMA.names)


async def test_a_query_past_its_limits_is_refused_and_the_store_goes_on(engine: Embedded, database: str) -> None:
    """Too much memory and too much time are answers, not crashes."""
    small = ClickHouse(engine, database, Limits(queries=1, query_memory_bytes=20_000_000, query_seconds=1))
    await small.open()
    with pytest.raises(ResourceExhausted) as too_large:
        await small.rows("SELECT uniqExact(number) FROM numbers(30000000)")
    assert too_large.value.reason == "QUERY_TOO_LARGE"
    with pytest.raises(ResourceExhausted) as too_slow:
        await small.rows("SELECT count() FROM numbers(200000000000) WHERE NOT ignore(sipHash64(number))")
    assert too_slow.value.reason == "QUERY_TOO_SLOW"
    await small.check()
    await small.close()


async def test_the_answer_after_a_failed_query_is_its_own(engine: Embedded, database: str) -> None:
    """What a query had answered before it failed is never taken for the answer of the next one."""
    clickhouse = ClickHouse(engine, database, Limits(queries=1, query_memory_bytes=2**28, query_seconds=1))
    await clickhouse.open()
    for broken in (
        "SELECT throwIf(number = 3000000) FROM numbers(10000000)",
        "SELECT number, toString(number) FROM numbers(3000000000)",
        "SELECT 1; DROP TABLE events",
    ):
        with pytest.raises((DatabaseError, ResourceExhausted)):
            await clickhouse.rows(broken)
        assert await clickhouse.rows("SELECT count() FROM events") == [(0,)]
    await clickhouse.close()


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO segments SELECT 'a', 'b', 0, 0",
        "SELECT * FROM file('/etc/hostname', 'LineAsString')",
        "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
        "SET max_memory_usage = 0",
    ],
)
async def test_readers_can_only_read_tables(clickhouse: ClickHouse, sql: str) -> None:
    """Whatever slips into a query finds neither files nor the network nor its own limits."""
    with pytest.raises(DatabaseError):
        await clickhouse.rows(sql)
    assert await clickhouse.rows("SELECT count() FROM events") == [(0,)]


async def test_names_with_quotes_are_values(stores: Stores) -> None:
    """An event's or a segment's name never becomes SQL."""
    name = "x') OR 1=1; DROP TABLE events -- {segment_id:String}"
    await append(stores, [Happening(uuid4(), moment("2026-11-10"), name, "m1")])
    days = DayRange.of("2026-11-01", "2026-11-20", "", NOW)
    question = FunnelQuestion((name, CHECKOUT), timedelta(days=1), days)
    assert await stores.figures.funnel(question, segment_id=None) == {1: 1}
    assert await stores.people.segment_id(name) is None
    assert [found.name for found in await stores.events.names(5)] == [name]


async def test_opening_again_keeps_what_is_there(engine: Embedded, database: str) -> None:
    """The schema is brought forward, not made anew."""
    limits = Limits(queries=1, query_memory_bytes=2**28, query_seconds=30)
    for expected in (1, 1):
        clickhouse = ClickHouse(engine, database, limits)
        await clickhouse.open()
        await append(Stores.on(clickhouse), [Happening(UUID(int=7), moment("2026-11-10"), "page", "m1")])
        assert await clickhouse.rows("SELECT count() FROM events FINAL") == [(expected,)]
        await clickhouse.close()


async def test_a_store_that_is_not_open_yet_says_so(engine: Embedded, database: str) -> None:
    """A call that comes while the engine starts may be tried again."""
    clickhouse = ClickHouse(engine, database, Limits(queries=1, query_memory_bytes=2**28, query_seconds=30))
    for early in (clickhouse.check(), clickhouse.rows("SELECT 1"), append(Stores.on(clickhouse), [])):
        with pytest.raises(Unavailable, match="not open yet"):
            await early
    await clickhouse.close()


async def test_an_error_of_the_engine_is_not_its_own_cause(clickhouse: ClickHouse) -> None:
    """Whoever walks along the causes of an error comes to an end."""
    with pytest.raises(DatabaseError) as unknown:
        await clickhouse.rows("SELECT nothing")
    assert unknown.value.__cause__ is not unknown.value


async def test_days_are_days_of_the_calendar(stores: Stores) -> None:
    """The day of an event is its day in the zone, not in UTC."""
    await append(stores, [Happening(uuid4(), moment("2026-11-10T16:00:00"), "page", "m1")])
    for zone, day in (("Asia/Seoul", date(2026, 11, 11)), ("UTC", date(2026, 11, 10))):
        series = await query_kpis(
            stores, DayRange.of("2026-11-10", "2026-11-11", zone, NOW), segment="", currency="KRW"
        )
        assert [kpis.date for kpis in series.days if kpis.events] == [day]
