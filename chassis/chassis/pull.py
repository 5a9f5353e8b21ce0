# SPDX-License-Identifier: Apache-2.0
"""Pull messages of a durable consumer with a standing request.

nats-py's own `fetch` waits for a full batch until its timeout, which costs freshness when little flows; here whatever
has arrived is handed over at once, and more is asked for while it is being handled.
"""

import asyncio
import json
import logging
from collections import deque
from typing import NamedTuple

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from chassis.bus import Bus

log = logging.getLogger(__name__)

_EXPIRES_S = 10.0
_NANOSECONDS = 1_000_000_000


class _Lane(NamedTuple):
    """What has arrived of some shards."""

    arrived: deque[Msg]
    wake: asyncio.Event


def lane_of(subject: str, lanes: int) -> int:
    """Return which of some lanes takes a message: the shard that its subject ends with decides, else it is the first.

    So what comes after one another of a customer never waits in two lanes for the same rows.
    """
    shard = subject.rpartition(".")[2]
    return int(shard) % lanes if shard.isdecimal() else 0


class Puller:
    """The messages of one durable consumer, as they come; each lane is handed those of shards of its own."""

    def __init__(
        self, bus: Bus, stream: str, durable: str, subject: str, *, batch: int, ack_wait_s: float, lanes: int = 1
    ) -> None:
        self._bus = bus
        self._stream = bus.stream(stream)
        self._durable = durable
        self._subjects = [bus.subject(subject), bus.subject(f"{stream.lower()}.replay.{durable}")]
        self._batch = batch
        self._ack_wait_s = ack_wait_s
        self._lanes = [_Lane(deque(), asyncio.Event()) for _ in range(lanes)]
        self._outstanding = 0
        self._asked_at = 0.0
        self._subscription: NatsSubscription | None = None
        self._inbox = ""

    async def open(self) -> None:
        """Create the durable consumer, or change it to what is wanted, and start to listen."""
        await self._ensure_consumer()
        self._inbox = self._bus.client.new_inbox()
        self._subscription = await self._bus.client.subscribe(self._inbox, cb=self._on_message)

    async def close(self) -> None:
        """Stop listening; what was pulled and not handled comes again after the ack wait."""
        if self._subscription is not None and self._bus.connected:
            await self._subscription.unsubscribe()
        for lane in self._lanes:
            for message in lane.arrived:
                await message.nak()
            lane.arrived.clear()

    async def next(self, wait_s: float, lane: int = 0) -> list[Msg]:
        """Return what has arrived for a lane, at most one batch; an empty list when nothing came in time."""
        arrived, wake = self._lanes[lane]
        if not arrived:
            wake.clear()
            await self._ask()
            try:
                await asyncio.wait_for(wake.wait(), wait_s)
            except TimeoutError:
                return []
        taken = [arrived.popleft() for _ in range(min(self._batch, len(arrived)))]
        await self._ask()
        return taken

    def reset(self) -> None:
        """Forget what was asked for, because the connection that it was asked on is gone."""
        self._outstanding = 0

    async def _ask(self) -> None:
        loop_time = asyncio.get_running_loop().time()
        if self._outstanding > 0 and loop_time - self._asked_at > _EXPIRES_S + 2:
            self._outstanding = 0
        waiting = sum(len(lane.arrived) for lane in self._lanes)
        if self._outstanding > 0 or waiting >= self._batch * len(self._lanes):
            return
        self._outstanding = self._batch
        self._asked_at = loop_time
        request = {"batch": self._batch, "expires": int(_EXPIRES_S * _NANOSECONDS)}
        await self._bus.client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._durable}",
            json.dumps(request).encode(),
            reply=self._inbox,
        )

    async def _on_message(self, message: Msg) -> None:
        status = (message.headers or {}).get("Status") if not message.data else None
        if status is None:
            lane = self._lanes[lane_of(message.subject, len(self._lanes))]
            lane.arrived.append(message)
            self._outstanding -= 1
            lane.wake.set()
            return
        # 404 and 408: nothing more for this request. 409: the consumer is gone or has moved; 503: no consumer.
        self._outstanding = 0
        if status in ("409", "503"):
            log.warning("consumer %s: %s", self._durable, (message.headers or {}).get("Description", status))
            await asyncio.sleep(0.2)
        for lane in self._lanes:
            lane.wake.set()

    async def _ensure_consumer(self) -> None:
        config = ConsumerConfig(
            durable_name=self._durable,
            filter_subjects=self._subjects,
            deliver_policy=DeliverPolicy.ALL,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self._ack_wait_s,
            max_deliver=-1,
            max_ack_pending=max(1000, self._batch * 8),
        )
        while True:
            try:
                await self._bus.jetstream.add_consumer(self._stream, config)
                return
            except NotFoundError:
                await self._bus.ensure_streams()
            except (nats.errors.Error, JetStreamError, TimeoutError, OSError) as error:
                log.warning("consumer %s cannot be made yet: %s", self._durable, type(error).__name__)
                await asyncio.sleep(0.5)
