# SPDX-License-Identifier: Apache-2.0
"""Import a real data set into the platform: in pieces, resumable, with a report of what was rejected."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from demo.answers import print_answers
from demo.api import Api
from demo.expectations import Expectations
from demo.importers import Dataset, open_dataset
from demo.importers.rows import Rejections
from demo.options import Options, state_file
from demo.progress import Progress
from demo.segments import IMPORT_SEGMENTS
from demo.sender import Sender
from demo.shop import ZONE
from demo.waiting import wait_until_settled

FUNNELS = {
    "online-retail": ("identify", "Order Completed", "Order Refunded"),
    "movielens-100k": ("identify", "Product Viewed", "Product Rated"),
}
SHOWN_DAYS = 365


class Bookmark:
    """A file that remembers how far an import came, and by how much it moves times."""

    def __init__(self, file: Path, url: str, path: Path) -> None:
        self._file = file
        self._about = {"url": url, "path": str(path.resolve())}

    def read(self) -> tuple[int, timedelta | None, Rejections]:
        """The next row, the shift and the rejected rows of an import that was interrupted, or of none."""
        try:
            state: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8"))
            if {key: state[key] for key in self._about} == self._about:
                shift = timedelta(days=state["shift_days"])
                return int(state["next_row"]), shift, Rejections.from_json(state["rejected"])
        except (FileNotFoundError, KeyError, TypeError, ValueError):
            pass
        return 0, None, Rejections()

    def write(self, next_row: int, shift: timedelta, rejections: Rejections) -> None:
        """Remember that everything before a row is acknowledged."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        draft = self._file.with_suffix(".new")
        state = {"next_row": next_row, "shift_days": shift.days, "rejected": rejections.as_json()}
        draft.write_text(json.dumps(self._about | state), encoding="utf-8")
        draft.replace(self._file)

    def remove(self) -> None:
        """Forget it: the import is complete."""
        self._file.unlink(missing_ok=True)


def transfer(api: Api, options: Options, name: str, path: Path) -> None:
    """Import a data set, then ask the platform about it."""
    print(f"reading {name} from {path}")
    dataset = open_dataset(name, path)
    items = dataset.items()
    api.put_items(items)
    for segment in IMPORT_SEGMENTS:
        api.put_segment(*segment)
    print(f"{len(items):,} items, {dataset.row_count:,} rows")
    bookmark = Bookmark(state_file(options, name), options.url, path)
    expectations, shift = _send(dataset, bookmark, options)
    wait_until_settled(api, expectations.sample(), options.patience)
    showcase = expectations.showcase()
    if showcase is not None:
        last_day = (dataset.last_time + shift).astimezone(ZONE).date()
        print_answers(api, showcase, last_day - timedelta(days=SHOWN_DAYS - 1), last_day, FUNNELS[name])


def _send(dataset: Dataset, bookmark: Bookmark, options: Options) -> tuple[Expectations, timedelta]:
    start_row, shift, rejections = bookmark.read()
    if start_row:
        print(f"an earlier import was interrupted: going on at row {start_row + 1:,}")
    if shift is None:
        shift = timedelta() if options.keep_times else shift_to_now(dataset.last_time, datetime.now(UTC))
    expectations, progress = Expectations(), Progress("rows", dataset.row_count, start_row)
    with Sender(options.url, options.write_key) as sender, progress:
        for chunk in dataset.chunks(start_row, shift):
            for action in chunk.actions:
                sender.send(action)
                expectations.note(action)
            sender.flush()
            rejections.add(chunk.rejected)
            bookmark.write(chunk.next_row, shift, rejections)
            progress.reach(
                chunk.next_row, f"{sender.counts.total():,} events, {rejections.counts.total():,} rows rejected"
            )
    bookmark.remove()
    for line in rejections.lines():
        print(line)
    return expectations, shift


def shift_to_now(last: datetime, now: datetime) -> timedelta:
    """Return how many whole days to add so that the last event is as recent as can be."""
    return timedelta(days=(now - last).days)
