# SPDX-License-Identifier: Apache-2.0
"""How good recommendations are, beside what is popular and beside chance, on real histories split by time.

Day by day of the split, everything up to it is learnt by the service's own code, and each customer who then deals with
something new within the following days gets 20 recommendations: NDCG@10 and Recall@20 over what the customer really
took. Items the customer dealt with before neither count nor are recommended. `--grid` tries other parameters.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import os
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np
from svc_recommend.domain.histories import Changes
from svc_recommend.domain.interactions import DEFAULT_WEIGHTS, THOUSANDTHS
from svc_recommend.domain.items import Item, ItemId
from svc_recommend.domain.model import Model
from svc_recommend.domain.neighbours import Parameters
from svc_recommend.domain.ranking import Deed, Taste, recommend
from svc_recommend.domain.shelf import Shelf

from bench.report import put_table, table

NAME = "recommend-quality"
DAY_US = 86_400_000_000
SIZE = 20
TOP = 10
GOODS = re.compile(r"\d{5}[A-Za-z]*")
"""Stock codes of goods; others are postage, fees and samples."""
SPLITS = {"Online Retail": (8, 7), "MovieLens 100K": (14, 14)}
"""Number of splits and days between them."""
BASELINES = ("chance", "popular of all time", "popular these days")

PARAMETERS: Mapping[str, Sequence[float]] = {
    "half_life_days": (7.0, 30.0, 60.0),
    "shrinkage": (0.0, 1.0, 5.0, 10.0),
    "most_neighbours": (25, 100),
    "most_items": (25, 100),
    "most_customers": (300, 1000),
}
"""Other parameters to try."""
TASTES: Mapping[str, Sequence[float]] = {
    "most_sources": (20, 100),
    "half_life_days": (7.0, 60.0),
    "popularity_power": (0.0, 0.25, 0.75, 1.0),
    "source_share": (0.2, 0.34, 1.0),
}
"""Other tastes to try."""


@dataclass(frozen=True, slots=True)
class Act:
    """One customer dealt with one item."""

    time_us: int
    customer: str
    item: ItemId
    weight: int
    """In thousandths, as the events that the demo's importers send would teach."""
    is_wanted: bool
    """Whether a recommender should have foreseen it."""


@dataclass
class Known:
    """All that is known at one point in time."""

    deeds: dict[str, dict[ItemId, Deed]] = field(default_factory=dict)
    customers: dict[ItemId, int] = field(default_factory=dict)

    def learn(self, acts: Sequence[Act]) -> Changes:
        """Add up acts; return the sums that changed."""
        changed: dict[tuple[str, ItemId], Deed] = {}
        for act in acts:
            deeds = self.deeds.setdefault(act.customer, {})
            before = deeds.get(act.item)
            if before is None:
                self.customers[act.item] = self.customers.get(act.item, 0) + 1
            deed = Deed(act.item, act.weight, act.time_us, bought=False)
            deeds[act.item] = changed[act.customer, act.item] = before.joined(deed) if before else deed
        return Changes(
            [fragment(customer) for customer, _ in changed],
            [item for _, item in changed],
            [deed.weight for deed in changed.values()],
            [deed.last_time_us for deed in changed.values()],
        )


def fragment(customer: str) -> bytes:
    """Return a fragment for a customer."""
    return random.Random(customer).randbytes(16)


def online_retail(folder: Path) -> list[Act]:
    """Each invoice line of a known customer is an order of one product."""
    import pyarrow.parquet as parquet

    rows = parquet.read_table(folder / "online-retail" / "transactions.parquet").to_pylist()
    weight = round(DEFAULT_WEIGHTS["Order Completed"].weight * THOUSANDTHS)
    acts = {
        (row["invoice"], row["stock_code"]): Act(
            int(row["invoice_date"].replace(tzinfo=UTC).timestamp() * 1e6),
            str(int(row["customer_id"])),
            ItemId(row["stock_code"]),
            weight,
            is_wanted=True,
        )
        for row in rows
        if row["customer_id"] is not None
        and not str(row["invoice"]).startswith("C")
        and row["quantity"] > 0
        and row["price"] > 0
        and GOODS.fullmatch(row["stock_code"])
    }
    return sorted(acts.values(), key=lambda act: (act.time_us, act.customer, act.item))


def movielens(folder: Path) -> list[Act]:
    """Each rating is a view and a rating; four stars and more are what the customer wanted."""
    viewed, rated = DEFAULT_WEIGHTS["Product Viewed"].weight, DEFAULT_WEIGHTS["Product Rated"].weight
    acts = []
    with gzip.open(folder / "movielens-100k" / "ratings.csv.gz", "rt", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            stars = int(row["rating"])
            weight = round((viewed + rated * (stars - 3) / 2) * THOUSANDTHS)
            moment = int(row["timestamp"]) * 1_000_000
            acts.append(Act(moment, row["user_id"], ItemId(row["item_id"]), weight, is_wanted=stars >= 4))
    return sorted(acts, key=lambda act: (act.time_us, act.customer, act.item))


DATASETS: Mapping[str, Callable[[Path], list[Act]]] = {"Online Retail": online_retail, "MovieLens 100K": movielens}


@dataclass
class Score:
    """Sums over customers."""

    ndcg: list[float] = field(default_factory=list)
    recall: list[float] = field(default_factory=list)

    def add(self, ranked: Sequence[ItemId], wanted: set[ItemId]) -> None:
        """Score one answer."""
        hits = [item in wanted for item in ranked[:SIZE]]
        ideal = sum(1 / np.log2(rank + 2) for rank in range(min(TOP, len(wanted))))
        self.ndcg.append(sum(hit / np.log2(rank + 2) for rank, hit in enumerate(hits[:TOP])) / ideal)
        self.recall.append(sum(hits) / len(wanted))


def evaluate(
    acts: Sequence[Act], count: int, days: int, parameters: Parameters, tastes: Mapping[str, Taste]
) -> dict[str, Score]:
    """Walk through the splits; each learns only what the one before did not know."""
    scores = {name: Score() for name in (*BASELINES, *tastes)}
    known, shelf = Known(), Shelf()
    model = Model(replace(parameters, tolerance=0.0), most_fragments=10**9)
    end, begin = acts[-1].time_us, 0
    for number in range(count, 0, -1):
        cut = end - number * days * DAY_US
        for _ in model.put(known.learn([act for act in acts if begin < act.time_us <= cut])):
            pass
        while model.due_count:
            shelf.put_neighbourhoods(model.refresh(1000))
        shelf.put_items(Item(item_id, item_id) for item_id in known.customers)
        shelf.arrange()
        _score(scores, known, shelf, tastes, [act for act in acts if cut < act.time_us <= cut + days * DAY_US])
        begin = cut
    return scores


def _score(
    scores: Mapping[str, Score], known: Known, shelf: Shelf, tastes: Mapping[str, Taste], later: Sequence[Act]
) -> None:
    wanted: dict[str, set[ItemId]] = {}
    for act in later:
        if act.is_wanted and act.customer in known.deeds and act.item not in known.deeds[act.customer]:
            wanted.setdefault(act.customer, set()).add(act.item)
    all_time = sorted(known.customers, key=lambda item: (-known.customers[item], item))
    these_days = [item_id for place in shelf.popular("").tolist() if (item_id := _id(shelf, place))]
    chance = random.Random(1)
    for customer in sorted(wanted):
        seen = known.deeds[customer]
        any_items = chance.sample(all_time, min(len(all_time), SIZE + len(seen)))
        answers = dict(zip(BASELINES, (any_items, all_time, these_days), strict=True))
        for name, taste in tastes.items():
            slate = recommend(shelf, list(seen.values()), SIZE, "", taste)
            answers[name] = [each.item.item_id for each in slate.recommendations]
        for name, answer in answers.items():
            unseen = itertools.islice((item for item in answer if item not in seen), SIZE)
            scores[name].add(list(unseen), wanted[customer])


def _id(shelf: Shelf, place: int) -> ItemId | None:
    item = shelf.item(place)
    return item.item_id if item else None


def rows(acts: Mapping[str, Sequence[Act]]) -> Iterator[tuple[object, ...]]:
    """Measure every data set with the service's own parameters."""
    for name, these in acts.items():
        for what, score in evaluate(these, *SPLITS[name], Parameters(), {"svc-recommend": Taste()}).items():
            yield name, what, f"{np.mean(score.ndcg):.4f}", f"{np.mean(score.recall):.4f}", len(score.ndcg)


def grid(acts: Mapping[str, Sequence[Act]]) -> None:
    """Try other parameters and tastes, one at a time around the service's own."""
    tastes = {"as it is": Taste()}
    for name, values in TASTES.items():
        changes: list[dict[str, Any]] = [{name: value} for value in values]
        tastes |= {f"taste {change}": replace(Taste(), **change) for change in changes}
    for dataset, these in acts.items():
        _print(dataset, evaluate(these, *SPLITS[dataset], Parameters(), tastes))
        for name, values in PARAMETERS.items():
            changes = [{name: value} for value in values]
            for change in changes:
                tried = {f"{change}": Taste()}
                scores = evaluate(these, *SPLITS[dataset], replace(Parameters(), **change), tried)
                _print(dataset, {label: scores[label] for label in tried})


def _print(dataset: str, scores: Mapping[str, Score]) -> None:
    for label, score in scores.items():
        print(f"{dataset:16}{np.mean(score.ndcg):.4f} {np.mean(score.recall):.4f}  {label}", flush=True)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", action="store_true", help="try other parameters, and print")
    parser.add_argument("--only", choices=list(DATASETS), help="one data set")
    options = parser.parse_args()
    folder = os.environ.get("DANGOL_DATASETS", "")
    if not folder:
        print("DANGOL_DATASETS is not set: no data sets to measure on")
        return
    acts = {name: read(Path(folder)) for name, read in DATASETS.items() if options.only in (None, name)}
    if options.grid:
        grid(acts)
        return
    lines = table(["data set", "recommender", "NDCG@10", "Recall@20", "customers"], list(rows(acts)))
    splits = "; ".join(f"{name}: {count} splits, {days} days apart" for name, (count, days) in SPLITS.items())
    lines += ["", f"{splits}. Only what a customer had not dealt with before counts."]
    print("\n".join(lines))
    if not options.only:
        put_table(NAME, lines)


if __name__ == "__main__":
    main()
