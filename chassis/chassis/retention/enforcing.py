# SPDX-License-Identifier: Apache-2.0
"""Enforce the rules of retention in one service, and tell what they would do and did."""

from collections.abc import Sequence
from dataclasses import replace

from dangol.operations.v1 import retention_pb2 as pb
from dangol.operations.v1.retention_pb2_grpc import RetentionReportServiceServicer
from dangol.profile.v1.retention_pb2 import RETENTION_ACTION_ANONYMISE
from grpc.aio import ServicerContext

from chassis.clock import now, timestamp_from_us, to_timestamp, to_us
from chassis.database import Database
from chassis.errors import Invalid
from chassis.retention.heard import Run, begin, list_runs, note_progress, read_rules
from chassis.retention.rules import Due, RetentionRule, RetentionStore, dues_of

BATCH = 2_000
"""Most rows in one transaction: whoever waits for one of them does not wait long."""


class Retention:
    """The job: a transaction of its own for each step, each of which begins with what the tables say."""

    def __init__(self, database: Database, stores: Sequence[RetentionStore]) -> None:
        self._database = database
        self._stores = stores

    async def run(self) -> None:
        """Enforce every rule on every table."""
        async with self._database.snapshot() as tx:
            rules = await read_rules(tx)
        for due in dues_of(rules, to_us(now())):
            for store in self._stores:
                await self._enforce(store, due)

    async def _enforce(self, store: RetentionStore, due: Due) -> None:
        async with self._database.transaction() as tx:
            before_us, salt = await begin(tx, due, store.table)
        due, touched = replace(due, before_us=before_us, salt=salt), 1
        while touched:
            async with self._database.transaction() as tx:
                touched = await store.enforce(tx, due, BATCH)
                await note_progress(tx, due, store.table, touched)


class RetentionReportRpc(RetentionReportServiceServicer):
    """Tells what retention would do in this service, and what it did."""

    def __init__(self, service: str, database: Database, stores: Sequence[RetentionStore]) -> None:
        self._service = service
        self._database = database
        self._stores = stores

    async def PreviewRetention(
        self, request: pb.PreviewRetentionRequest, context: ServicerContext
    ) -> pb.PreviewRetentionResponse:
        """Count what each rule would touch."""
        answer = pb.PreviewRetentionResponse()
        async with self._database.snapshot() as tx:
            for due in _wanted(request, await read_rules(tx)):
                for store in self._stores:
                    answer.previews.add(
                        service=self._service,
                        table=store.table,
                        rule_id=due.rule.rule_id,
                        due_count=await store.count(tx, due),
                    )
        return answer

    async def ListRetentionRuns(
        self, request: pb.ListRetentionRunsRequest, context: ServicerContext
    ) -> pb.ListRetentionRunsResponse:
        """Tell what each rule did."""
        async with self._database.snapshot() as tx:
            runs = await list_runs(tx)
        return pb.ListRetentionRunsResponse(runs=[_run_to_proto(self._service, run) for run in runs])


def _wanted(request: pb.PreviewRetentionRequest, rules: Sequence[RetentionRule]) -> list[Due]:
    if not request.event:
        return dues_of(rules, to_us(now()))
    if not request.days:
        raise Invalid.field("days", "must be at least 1")
    anonymise = request.action == RETENTION_ACTION_ANONYMISE
    tried = RetentionRule("", request.event, request.purpose_id, request.days, anonymise)
    return [due for due in dues_of([*rules, tried], to_us(now())) if due.rule is tried]


def _run_to_proto(service: str, run: Run) -> pb.RetentionRun:
    message = pb.RetentionRun(
        service=service,
        table=run.table,
        rule_id=run.rule_id,
        start_time=to_timestamp(run.start),
        before_time=timestamp_from_us(run.before_us),
        touched_count=run.touched_count,
        total_count=run.total_count,
    )
    if run.end is not None:
        message.end_time.CopyFrom(to_timestamp(run.end))
    return message
