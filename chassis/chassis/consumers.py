# SPDX-License-Identifier: Apache-2.0
"""Run subscriptions: one transaction per micro-batch, ack after commit, bury what never will work."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import cast

import nats.errors
from dangol.events.v1.events_pb2 import EventBatch
from google.protobuf.message import DecodeError, Message
from nats.aio.msg import Msg
from opentelemetry.trace import SpanKind

from chassis import telemetry
from chassis.bus import Bus
from chassis.database import Database, Transaction, lost_connection
from chassis.dead_letters import bury
from chassis.errors import Invalid, Unavailable
from chassis.privacy.tombstones import Tombstones
from chassis.pull import Puller
from chassis.streams import Delivery, StreamSubscription, Subscription

log = logging.getLogger(__name__)

_IDLE_WAIT_S = 1.0
_BACKOFF_S = (0.2, 1.0, 5.0, 15.0, 60.0)
_RECONNECT_S = 0.5

_FIRST_TIME = """
INSERT INTO inbox (consumer, message_id)
SELECT CAST(:consumer AS text), message_id FROM unnest(CAST(:ids AS text[])) AS g (message_id) ORDER BY message_id
ON CONFLICT DO NOTHING RETURNING message_id
"""


class Consumer:
    """One subscription at work."""

    def __init__(
        self,
        service: str,
        subscription: Subscription,
        bus: Bus,
        database: Database | None,
        *,
        max_deliver: int,
        ack_wait_s: float,
        tombstones: Tombstones | None = None,
    ) -> None:
        self.name = f"{service}-{subscription.short_name}"
        self._subscription = subscription
        self._bus = bus
        self._database = database
        self._max_deliver = max_deliver
        self._tombstones = tombstones
        self._stopping = asyncio.Event()
        self._puller = Puller(
            bus,
            subscription.stream,
            self.name,
            subscription.heard_subject,
            batch=subscription.batch_messages,
            ack_wait_s=ack_wait_s,
            lanes=subscription.at_once,
        )

    def stop(self) -> None:
        """Take no more work; what is in hand is finished."""
        self._stopping.set()

    async def run(self) -> None:
        """Handle micro-batches until stopped."""
        await self._puller.open()
        try:
            async with asyncio.TaskGroup() as workers:
                for lane in range(self._subscription.at_once):
                    workers.create_task(self._work(lane))
        finally:
            await self._puller.close()

    async def _work(self, lane: int) -> None:
        while not self._stopping.is_set():
            await self._turn(lane)

    async def _turn(self, lane: int) -> None:
        try:
            messages = await self._puller.next(_IDLE_WAIT_S, lane)
        except (nats.errors.Error, OSError):
            self._puller.reset()
            await asyncio.sleep(_RECONNECT_S)
            return
        if not self._bus.connected:
            self._puller.reset()
        if messages:
            started = time.perf_counter()
            with telemetry.span(f"{self.name} batch", SpanKind.CONSUMER, messages[0].headers):
                await self._handle_all(messages)
            telemetry.BATCH_SECONDS.labels(self.name).observe(time.perf_counter() - started)
            telemetry.PENDING.labels(self.name).set(messages[-1].metadata.num_pending)
            if len(messages) < self._subscription.batch_messages:
                await self._rest()

    async def _rest(self) -> None:
        """Let messages gather, where the subscription wants that; a stop ends it."""
        if self._subscription.rest_s:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._subscription.rest_s)

    async def _handle_all(self, messages: list[Msg]) -> None:
        """Handle a batch in one go; when that fails, each message alone, so that one cannot hold up the others."""
        deliveries = []
        for message in messages:
            try:
                deliveries.append((message, self._decode(message)))
            except DecodeError as error:
                await self._bury(message, error)
        if deliveries:
            await self._attempt(deliveries)

    async def _attempt(self, batch: list[tuple[Msg, Delivery[Message]]]) -> None:
        while True:
            try:
                await self._handle([delivery for _, delivery in batch])
            except Exception as error:  # whatever a handler raises is dealt with here, once
                if not lost_connection(error):
                    await self._failed(batch, error)
                    return
                if self._stopping.is_set():
                    # The absence of an engine is nobody's failure: another process takes the batch over.
                    await self._give_back(batch)
                    return
                await self._wait_for_engines(batch, error)
                continue
            await self._ack([message for message, _ in batch])
            return

    async def _failed(self, batch: list[tuple[Msg, Delivery[Message]]], error: Exception) -> None:
        if len(batch) > 1:
            for single in batch:
                await self._attempt([single])
            return
        message, delivery = batch[0]
        if isinstance(error, Invalid) or delivery.delivered_count >= self._max_deliver:
            await self._bury(message, error)
            return
        log.error("%s failed on %s", self.name, delivery.message_id, exc_info=error)
        telemetry.MESSAGES.labels(self.name, "retried").inc()
        delay = _BACKOFF_S[min(delivery.delivered_count, len(_BACKOFF_S)) - 1]
        await self._answer(message.nak(delay=delay))

    async def _handle(self, deliveries: Sequence[Delivery[Message]]) -> None:
        subscription = self._subscription
        if self._tombstones is not None:
            deliveries = await self._without_forgotten(self._tombstones, deliveries)
        if isinstance(subscription, StreamSubscription):
            await subscription.handler(deliveries)
            return
        if self._database is None:
            raise RuntimeError(f"{self.name} needs a database")
        async with self._database.transaction() as tx:
            if subscription.inbox:
                fresh = await self._first_time(tx, deliveries)
                if fresh:
                    await subscription.handler(tx, fresh if subscription.whole else [each.message for each in fresh])
                if tx.promises:
                    raise RuntimeError(f"{self.name}: publish_after_commit needs inbox=False, or a crash loses it")
            else:
                await subscription.handler(tx, deliveries)
        await self._bus.publish_all(tx.outgoing())

    async def _without_forgotten(
        self, tombstones: Tombstones, deliveries: Sequence[Delivery[Message]]
    ) -> Sequence[Delivery[Message]]:
        """Leave out events of customers who were erased while the events were on their way."""
        if not await tombstones.current():
            return deliveries
        return [
            replace(delivery, message=await tombstones.without_forgotten(cast(EventBatch, delivery.message)))
            for delivery in deliveries
        ]

    async def _first_time(self, tx: Transaction, deliveries: Sequence[Delivery[Message]]) -> list[Delivery[Message]]:
        by_id = {delivery.message_id: delivery for delivery in deliveries}
        rows = await tx.rows(_FIRST_TIME, consumer=self.name, ids=list(by_id))
        fresh = {row[0] for row in rows}
        return [delivery for message_id, delivery in by_id.items() if message_id in fresh]

    def _decode(self, message: Msg) -> Delivery[Message]:
        headers = message.headers or {}
        metadata = message.metadata
        message_id = headers.get("Dangol-Message-Id") or headers.get("Nats-Msg-Id") or ""
        subject = headers.get("Dangol-Subject") or message.subject.removeprefix(self._bus.prefix)
        return Delivery(
            message=self._subscription.read(headers.get("ce-type") or subject, message.data),
            message_id=message_id or f"{metadata.stream}:{metadata.sequence.stream}",
            subject=subject,
            stream_sequence=metadata.sequence.stream,
            delivered_count=metadata.num_delivered,
            announced_time=_time_of(headers, metadata.timestamp),
        )

    async def _ack(self, messages: list[Msg]) -> None:
        for message in messages:
            await self._answer(message.ack())
        telemetry.MESSAGES.labels(self.name, "handled").inc(len(messages))

    async def _answer(self, answer: "asyncio.Future[None] | object") -> None:
        try:
            await answer  # type: ignore[misc]
        except (nats.errors.Error, OSError):
            # The answer is lost, the message comes again and is found in the inbox.
            log.warning("%s could not answer the broker", self.name)

    async def _bury(self, message: Msg, error: Exception) -> None:
        log.error("%s gives up on a message: %s", self.name, type(error).__name__)
        try:
            await bury(self._bus, self.name, message, error)
        except Unavailable:
            await self._answer(message.nak(delay=1))
            return
        await self._answer(message.term())
        telemetry.MESSAGES.labels(self.name, "buried").inc()

    async def _give_back(self, batch: list[tuple[Msg, Delivery[Message]]]) -> None:
        for message, _ in batch:
            await self._answer(message.nak())

    async def _wait_for_engines(self, batch: list[tuple[Msg, Delivery[Message]]], error: Exception) -> None:
        """Hold on to a batch while an engine is away; the broker is told that it is still being worked on."""
        log.warning("%s waits for an engine: %s", self.name, type(error).__name__)
        await asyncio.sleep(_RECONNECT_S)
        if self._bus.connected:
            for message, _ in batch:
                await self._answer(message.in_progress())


def _time_of(headers: Mapping[str, str], stored: datetime) -> datetime:
    try:
        return datetime.fromisoformat(headers["ce-time"])
    except (KeyError, ValueError):
        return stored
