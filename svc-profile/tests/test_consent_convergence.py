# SPDX-License-Identifier: Apache-2.0
"""The running service ends with the same consents in every order of arrival, in every batch, repeated or not."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from chassis.identity import IdentityKey
from chassis.testing import IDENTITY_KEY, Engines, RunningService, running
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from svc_profile.app import build
from svc_profile.settings import Settings

KEY = IdentityKey(bytes.fromhex(IDENTITY_KEY))
START_US = 1_760_000_000_000_000
MINUTE_US = 60_000_000
PURPOSES = ("personalization", "marketing_sms")
DEVICES, USERS = ("d1", "d2", "d3"), ("u1", "u2")

numbers = itertools.count()


@pytest.fixture(scope="module")
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    async with running(build, Settings, engines) as service:
        yield service


def history(chance: random.Random) -> list[dict[str, Any]]:
    """Draw what a few people do on a few devices, and say of consent."""
    drawn = []
    for minute in chance.sample(range(40), 12):
        device, user = chance.choice(DEVICES), chance.choice((*USERS, "", ""))
        answers = {purpose: chance.random() < 0.5 for purpose in PURPOSES if chance.random() < 0.6}
        name = chance.choice(("", "Consent Updated"))
        drawn.append({"minute": minute, "device": device, "user": user, "answers": answers, "name": name})
    return drawn


def event(drawn: dict[str, Any], number: int, tag: str) -> Event:
    """Build an event; those of another tag have other names and otherwise say the same."""
    preferences = ",".join(f'"{purpose}":{str(granted).lower()}' for purpose, granted in drawn["answers"].items())
    time_us = START_US + drawn["minute"] * MINUTE_US
    return Event(
        type=EventType.EVENT_TYPE_TRACK if drawn["name"] else EventType.EVENT_TYPE_PAGE,
        name=drawn["name"],
        message_id=f"{tag}-{number}",
        source="web",
        time_us=time_us,
        received_time_us=time_us,
        anonymous_id=f"{drawn['device']}-{tag}",
        user_id=f"{drawn['user']}-{tag}" if drawn["user"] else "",
        context=f'{{"consent":{{"categoryPreferences":{{{preferences}}}}}}}'.encode() if drawn["answers"] else b"",
    )


async def deliver(service: RunningService, events: Sequence[Event], chance: random.Random) -> None:
    """Send events in messages of chance sizes, some twice, and wait until every state is settled."""
    batches, left = [], list(events)
    while left:
        size = chance.randint(1, 4)
        batches.append(EventBatch(events=left[:size]))
        left = left[size:]
    batches += chance.sample(batches, min(2, len(batches)))
    for batch in batches:
        await service.deliver(batch, subject="events.collected.1")
    async with asyncio.timeout(60):
        while await waits(service):
            await asyncio.sleep(0.01)


async def waits(service: RunningService) -> bool:
    async with service.database.snapshot() as tx:
        return bool(await tx.value("SELECT EXISTS (SELECT FROM consent_due)"))


async def states(service: RunningService, tag: str) -> dict[str, tuple[Any, ...] | None]:
    """Return what holds for each name."""
    names = {f"anonymous_id:{device}-{tag}": device for device in DEVICES}
    names |= {f"user_id:{user}-{tag}": user for user in USERS}
    found: dict[str, tuple[Any, ...] | None] = dict.fromkeys(names.values())
    async with service.database.snapshot() as tx:
        for reference, name in names.items():
            row = await tx.row(
                "SELECT granted, refused, restricted FROM fragment_consents WHERE fragment_id = :id",
                id=KEY.resolve(reference),
            )
            # No row and a row without answers are the same.
            found[name] = tuple(row) if row is not None and (row.granted or row.refused) else None
    return found


@pytest.mark.parametrize("seed", range(8))
async def test_every_order_ends_in_the_same_consents(service: RunningService, seed: int) -> None:
    """The first one is the order in which it happened."""
    chance = random.Random(seed)
    drawn = history(chance)
    outcomes = []
    for order in (sorted(drawn, key=lambda each: each["minute"]), drawn, drawn[::-1]):
        tag = f"v{next(numbers)}"
        place = {id(each): number for number, each in enumerate(drawn)}
        await deliver(service, [event(each, place[id(each)], tag) for each in order], chance)
        outcomes.append(await states(service, tag))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert any(outcomes[0].values())
