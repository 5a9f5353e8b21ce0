# SPDX-License-Identifier: Apache-2.0
"""Run the simulated shop against the platform."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta

from demo.actions import Action, Remark
from demo.answers import print_answers
from demo.api import Api
from demo.expectations import Expectations
from demo.options import Options
from demo.progress import Progress
from demo.segments import SHOP_SEGMENTS
from demo.sender import Sender
from demo.shop import ZONE, Shop
from demo.waiting import wait_until_settled

TALKERS = 4


def simulate(api: Api, options: Options) -> None:
    """Fill the platform with the last days of the shop, then ask it."""
    now = datetime.now(ZONE)
    first_day = now.date() - timedelta(days=options.days - 1)
    shop = Shop.open(options.seed, options.customers)
    print(
        f"{len(shop.items)} items and {len(shop.customers):,} customers, {first_day} to {now.date()}, seed {shop.seed}"
    )
    api.put_items([item.as_json() for item in shop.items])
    for segment in SHOP_SEGMENTS:
        api.put_segment(*segment)
    expectations, remarks = _send_events(shop, options, first_day, now)
    _say(api, remarks)
    wait_until_settled(api, expectations.sample(), options.patience)
    showcase = expectations.showcase({customer.user_id for customer in shop.customers if customer.city == "Seoul"})
    if showcase is None:
        print("Nobody logged in; try more --customers or --days.")
        return
    print_answers(api, showcase, first_day, now.date())


def _send_events(shop: Shop, options: Options, first_day: date, now: datetime) -> tuple[Expectations, list[Remark]]:
    """Send every event up to now; returns what was sent, and what there is to say."""
    expectations, remarks = Expectations(), list[Remark]()
    with Sender(options.url, options.write_key) as sender, Progress("events sent with segment-analytics-python") as bar:
        for number in range(options.days):
            for happening in shop.day(first_day + timedelta(days=number)):
                if happening.time > now:
                    continue
                if isinstance(happening, Action):
                    sender.send(happening)
                    expectations.note(happening)
                    bar.reach(sender.sent)
                else:
                    remarks.append(happening)
        sender.flush()
        bar.reach(sender.sent, "all acknowledged")
    return expectations, remarks


def _say(api: Api, remarks: list[Remark]) -> None:
    def say(remark: Remark) -> None:
        api.post("/v1/feedback", remark.as_json(), requestId=remark.request_id)

    with Progress("reviews and survey answers", len(remarks)) as bar, ThreadPoolExecutor(TALKERS) as talkers:
        try:
            for _ in talkers.map(say, remarks):
                bar.advance()
        except BaseException:
            talkers.shutdown(cancel_futures=True)
            raise
