# SPDX-License-Identifier: Apache-2.0
"""Data subjects: what ClickHouse holds is erased, exported and searched."""

from typing import Any
from uuid import UUID, uuid4

import msgspec
from chassis.testing import RunningService
from dangol.events.v1.events_pb2 import EventBatch
from dangol.profile.v1 import privacy_pb2 as pb
from dangol.profile.v1.identity_pb2 import FORGET_REASON_REBUILT, FragmentsForgotten
from dangol.segmentation.v1.segmentation_pb2 import MembershipChange, MembershipsChanged
from svc_metrics.store.personal import IMPERSONAL, PERSONAL, PersonalColumns

from .histories import PRODUCT_VIEWED, Happening, moment


async def filled(service: RunningService) -> tuple[UUID, UUID]:
    """Let two customers do things and be in a segment."""
    kim, lee = uuid4(), uuid4()
    when = moment("2026-11-10T08:00")
    happenings = [
        Happening(who, when, PRODUCT_VIEWED, f"{name}-{number}", properties={"mail": f"{name}@example.com"})
        for who, name in ((kim, "kim"), (lee, "lee"))
        for number in range(3)
    ]
    batch = EventBatch(events=[each.event() for each in happenings])
    await service.deliver(batch, subject="events.resolved.0")
    changes = [MembershipChange(segment_id="seg_1", segment_name="vip", profile_id=who.bytes, member=True, revision=1)
               for who in (kim, lee)]  # fmt: skip
    await service.deliver(MembershipsChanged(changes=changes))
    return kim, lee


def asked(who: UUID) -> dict[str, Any]:
    """Return the fields of a question about a customer."""
    return {"data_request_id": "dsr_1", "round": 1, "fragment_ids": [who.bytes]}


async def test_an_erased_customer_is_in_no_table_and_others_stay(service: RunningService) -> None:
    """Also not in parts that a merge has yet to rewrite."""
    kim, _ = await filled(service)
    await service.deliver(pb.ErasureRequested(**asked(kim)))
    (report,) = await service.published(pb.ErasureReported)
    removed = {each.what: each.count for each in report.removed}
    assert removed == {"events": 3, "segment_members": 1}
    await service.deliver(pb.ProbeRequested(**asked(kim), values=["kim@example.com"]))
    await service.deliver(pb.ProbeRequested(**{**asked(uuid4()), "round": 2}, values=["lee@example.com"]))
    probes = {each.round: each for each in await service.published(pb.ProbeReported)}
    assert list(probes[1].leftovers) == []
    assert [(each.what, each.count) for each in probes[2].leftovers] == [("events.properties", 3)]


async def test_a_rebuilt_fragment_loses_its_events_and_keeps_its_customer(service: RunningService) -> None:
    """Memberships are the customer's, not the fragment's."""
    kim, _ = await filled(service)
    await service.deliver(FragmentsForgotten(fragment_ids=[kim.bytes], reason=FORGET_REASON_REBUILT))
    await service.deliver(pb.ErasureRequested(**asked(kim)))
    (report,) = await service.published(pb.ErasureReported)
    assert {each.what for each in report.removed} == {"segment_members"}


async def test_an_export_holds_the_events(service: RunningService) -> None:
    """And nothing of others."""
    kim, _ = await filled(service)
    await service.deliver(pb.ExportRequested(data_request_id="dsr_2", fragment_ids=[kim.bytes]))
    parts = await service.published(pb.ExportPart)
    events = [msgspec.json.decode(line) for part in parts if part.file == "events" for line in part.rows.splitlines()]
    assert sorted(event["message_id"] for event in events) == ["kim-0", "kim-1", "kim-2"]
    assert b"lee" not in b"".join(part.rows for part in parts)


async def test_every_table_says_whether_it_is_personal(service: RunningService) -> None:
    """A table that somebody adds must be declared."""
    assert await service.undeclared_tables() == set()
    (store,) = [each for each in service.service.personal if isinstance(each, PersonalColumns)]
    assert await store.tables() == {table.name for table in PERSONAL} | IMPERSONAL
