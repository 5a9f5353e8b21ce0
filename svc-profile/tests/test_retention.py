# SPDX-License-Identifier: Apache-2.0
"""Retention: rules through the door, and the store of events obeying them."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc
import pytest
from chassis.identity import IdentityKey
from chassis.retention.enforcing import Retention
from chassis.testing import IDENTITY_KEY, Engines, RunningService, running
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from dangol.operations.v1 import operations_pb2
from dangol.operations.v1 import retention_pb2 as report_pb
from dangol.operations.v1.operations_pb2_grpc import TraceServiceStub
from dangol.operations.v1.retention_pb2_grpc import RetentionReportServiceStub
from dangol.profile.v1 import consent_pb2, profile_pb2, traits_pb2
from dangol.profile.v1 import retention_pb2 as pb
from dangol.profile.v1.consent_pb2_grpc import ConsentServiceStub
from dangol.profile.v1.profile_pb2_grpc import ProfileServiceStub
from dangol.profile.v1.retention_pb2_grpc import RetentionServiceStub
from dangol.profile.v1.traits_pb2_grpc import TraitServiceStub
from google.protobuf.field_mask_pb2 import FieldMask
from svc_profile.app import build
from svc_profile.settings import Settings

KEY = IdentityKey(bytes.fromhex(IDENTITY_KEY))
OLD_US = 1_500_000_000_000_000
YOUNG_US = 1_795_000_000_000_000
DESTROY, ANONYMISE = pb.RETENTION_ACTION_DESTROY, pb.RETENTION_ACTION_ANONYMISE
Action: TypeAlias = pb.RetentionAction.ValueType
DAYS = 2000

numbers = itertools.count()


@pytest.fixture
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    async with running(build, Settings, engines) as service:
        yield service


def happened(user: str, name: str, time_us: int = OLD_US, **properties: Any) -> Event:
    """Return an event with everything that could tell whose it is."""
    return Event(
        type=EventType.EVENT_TYPE_TRACK,
        source="web",
        message_id=f"m{next(numbers)}",
        user_id=user,
        name=name,
        time_us=time_us,
        received_time_us=time_us,
        properties=json.dumps({"email": f"{user}@example.com", **properties}).encode(),
        context=json.dumps({"ip": "203.0.113.9", "userAgent": f"{user}'s browser"}).encode(),
    )


async def collect(service: RunningService, *events: Event) -> None:
    await service.deliver(EventBatch(events=events), subject="events.collected.1")


async def create(service: RunningService, event: str, action: Action, **more: Any) -> pb.RetentionRule:
    """Add a rule, and wait until the service has heard of it itself."""
    rule = pb.RetentionRule(**{"event": event, "action": action, "days": DAYS, **more})
    answer = await service.stub(RetentionServiceStub).CreateRetentionRule(
        pb.CreateRetentionRuleRequest(retention_rule=rule)
    )
    await service.settled()
    created: pb.RetentionRule = answer.retention_rule
    return created


async def enforce(service: RunningService) -> None:
    """Let the clock strike."""
    await Retention(service.database, service.service.retained).run()


async def test_a_union_keeps_what_only_destroyed_events_said(service: RunningService) -> None:
    """Also when the latest event is still there, and traits are derived again because another one is defined."""
    traits = service.stub(TraitServiceStub)

    async def define(name: str) -> None:
        union = traits_pb2.TraitDefinition(name=name, policy=traits_pb2.TRAIT_POLICY_UNION)
        await traits.CreateTraitDefinition(traits_pb2.CreateTraitDefinitionRequest(trait_definition=union))
        while (await traits.GetTraitDerivation(traits_pb2.GetTraitDerivationRequest())).running:
            await asyncio.sleep(0.02)

    await define("tags")
    for time_us, tag in ((OLD_US, "old"), (YOUNG_US, "new")):
        event = happened("union", "", time_us)
        event.MergeFrom(Event(type=EventType.EVENT_TYPE_IDENTIFY, traits=json.dumps({"tags": [tag]}).encode()))
        await collect(service, event)
    await create(service, "*", DESTROY)
    await enforce(service)
    await define("others")
    request = profile_pb2.GetProfileRequest(profile="user_id:union")
    profile = (await service.stub(ProfileServiceStub).GetProfile(request)).profile
    assert list(profile.traits["tags"]) == ["new", "old"]


async def rows(service: RunningService, sql: str, **given: Any) -> list[tuple[Any, ...]]:
    async with service.database.snapshot() as tx:
        return [tuple(row) for row in await tx.rows(sql, **given)]


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), error.value.details() or ""


async def test_destroyed_events_leave_a_key_and_the_customer_keeps_its_figures(service: RunningService) -> None:
    """What is younger stays; what was destroyed is no news when it comes again."""
    old, young = happened("kim", "Product Viewed"), happened("kim", "Product Viewed", YOUNG_US)
    await collect(service, old, young)
    before = await service.stub(ProfileServiceStub).GetProfile(profile_pb2.GetProfileRequest(profile="user_id:kim"))
    await create(service, "Product Viewed", DESTROY)
    await enforce(service)
    kept = "SELECT time_us, payload IS NULL, fragment_id IS NULL FROM events ORDER BY time_us"
    assert await rows(service, kept) == [(OLD_US, True, True), (YOUNG_US, False, False)]
    await collect(service, old)
    after = await service.stub(ProfileServiceStub).GetProfile(profile_pb2.GetProfileRequest(profile="user_id:kim"))
    assert after.profile.event_counts == before.profile.event_counts
    trace = await service.stub(TraceServiceStub).TraceEvent(operations_pb2.TraceEventRequest(message_id=old.message_id))
    assert "EXPIRED" in {step.outcome for step in trace.steps}


async def test_anonymised_events_say_what_happened_and_not_to_whom(service: RunningService) -> None:
    """Name, time and numbers stay; no column holds anything of the customer."""
    await collect(service, happened("kim", "Order Completed", order_id="o-77", total=12_000, currency="KRW"))
    await create(service, "*", ANONYMISE)
    await enforce(service)
    ((payload, time_us, name),) = await rows(
        service, "SELECT payload, time_us, name FROM events WHERE payload IS NOT NULL AND fragment_id IS NULL"
    )
    event = Event.FromString(payload)
    assert (name, time_us, event.name) == ("Order Completed", OLD_US, "Order Completed")
    assert json.loads(event.properties) == {"total": 12_000, "currency": "KRW"}
    assert not any(word in payload for word in (b"kim", b"203.0.113.9", b"o-77"))
    (whose,) = await rows(service, "SELECT count(*) FROM events WHERE fragment_id = :f", f=KEY.resolve("user_id:kim"))
    assert whose == (0,)
    await enforce(service)
    assert len(await rows(service, "SELECT 1 FROM events WHERE payload IS NOT NULL")) == 1


async def test_a_preview_touches_nothing_and_says_what_a_run_will(service: RunningService) -> None:
    """Also of a rule that is not there yet; a name with a rule of its own is not counted under `*`."""
    await collect(
        service, *(happened(f"kim{n}", "Product Viewed") for n in range(3)), happened("lee", "Order Completed")
    )
    stub = service.stub(RetentionReportServiceStub)
    rule = await create(service, "Product Viewed", DESTROY)
    tried = await stub.PreviewRetention(report_pb.PreviewRetentionRequest(event="*", days=DAYS))
    assert [(each.rule_id, each.due_count) for each in tried.previews] == [("", 1)]
    saved = await stub.PreviewRetention(report_pb.PreviewRetentionRequest())
    assert [(each.service, each.table, each.rule_id, each.due_count) for each in saved.previews] == [
        ("profile", "events", rule.rule_id, 3)
    ]
    await enforce(service)
    runs = (await stub.ListRetentionRuns(report_pb.ListRetentionRunsRequest())).runs
    assert [(run.rule_id, run.touched_count, run.HasField("end_time")) for run in runs] == [(rule.rule_id, 3, True)]
    assert await rows(service, "SELECT name FROM events WHERE payload IS NOT NULL") == [("Order Completed",)]


async def test_a_rule_of_a_purpose_is_about_customers_who_have_not_granted_it(service: RunningService) -> None:
    """Others keep theirs."""
    await collect(service, happened("kim", "Product Viewed"), happened("lee", "Product Viewed"))
    request = consent_pb2.RecordConsentRequest(
        profile="user_id:kim",
        decisions=[consent_pb2.ConsentDecision(purpose_id="personalization", answer=consent_pb2.CONSENT_ANSWER_DENIED)],
    )
    await service.stub(ConsentServiceStub).RecordConsent(request)
    await create(service, "*", DESTROY, purpose_id="personalization")
    await enforce(service)
    left = await rows(service, "SELECT fragment_id FROM events WHERE payload IS NOT NULL")
    assert [row[0].bytes for row in left] == [KEY.resolve("user_id:lee").bytes]


async def test_a_run_that_was_broken_off_never_reaches_further_than_its_rule_now(service: RunningService) -> None:
    """Somebody made the rule longer in between."""
    await collect(service, happened("kim", "Product Viewed"))
    rule = await create(service, "*", DESTROY)
    async with service.database.transaction() as tx:
        await tx.execute(
            "INSERT INTO retention_runs (rule_id, table_name, before_us, salt) VALUES (:r, 'events', :b, '')",
            r=rule.rule_id,
            b=YOUNG_US,
        )
    request = pb.UpdateRetentionRuleRequest(
        retention_rule=pb.RetentionRule(rule_id=rule.rule_id, days=36_500), update_mask=FieldMask(paths=["days"])
    )
    await service.stub(RetentionServiceStub).UpdateRetentionRule(request)
    await service.settled()
    await enforce(service)
    assert len(await rows(service, "SELECT 1 FROM events WHERE payload IS NOT NULL")) == 1


async def test_rules_are_kept_announced_and_held_to_their_limits(service: RunningService) -> None:
    """One rule for one event, purpose and action."""
    stub = service.stub(RetentionServiceStub)
    rule = await create(service, "Product Viewed", DESTROY)
    got = await stub.GetRetentionRule(pb.GetRetentionRuleRequest(rule_id=rule.rule_id))
    assert got.retention_rule == rule
    assert list((await stub.ListRetentionRules(pb.ListRetentionRulesRequest())).retention_rules) == [rule]
    again = pb.CreateRetentionRuleRequest(retention_rule=rule)
    assert (await refused(stub.CreateRetentionRule(again)))[0] is grpc.StatusCode.ALREADY_EXISTS
    nowhere = pb.RetentionRule(event="*", days=1, action=DESTROY, purpose_id="nowhere")
    code, text = await refused(stub.CreateRetentionRule(pb.CreateRetentionRuleRequest(retention_rule=nowhere)))
    assert (code, "purpose_id" in text) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    await stub.DeleteRetentionRule(pb.DeleteRetentionRuleRequest(rule_id=rule.rule_id))
    gone = pb.DeleteRetentionRuleRequest(rule_id=rule.rule_id)
    assert (await refused(stub.DeleteRetentionRule(gone)))[0] is grpc.StatusCode.NOT_FOUND
    await service.settled()
    told = await service.published(pb.RetentionRulesChanged)
    first, *_, last = (len(each.retention_rules) for each in sorted(told, key=lambda each: each.revision))
    assert (first, last) == (1, 0)
    assert await rows(service, "SELECT 1 FROM heard_retention_rules") == []
