# SPDX-License-Identifier: Apache-2.0
"""MovieLens: films as items, viewers as customers, ratings as views and ratings.

Files, each `.csv.gz` with a header: `ratings` (user_id, item_id, rating, timestamp in seconds), `items` (item_id,
title, release_date, genres separated by `|`), `users` (user_id, age, gender, occupation, zip).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from demo.actions import Action
from demo.importers.rows import ROWS_PER_CHUNK, BadDataset, Chunk, RejectedRow, csv_rows, find_file

RATING_COLUMNS = ("user_id", "item_id", "rating", "timestamp")
ITEM_COLUMNS = ("item_id", "title", "genres")
USER_COLUMNS = ("user_id", "age", "gender", "occupation", "zip")
LOWEST, HIGHEST = 1, 5
BEFORE_RATING = timedelta(minutes=1)


class MovieLens:
    """One copy of MovieLens 100K."""

    name = "movielens-100k"

    def __init__(self, path: Path) -> None:
        self._ratings = find_file(path, "ratings.csv.gz")
        self._films = {row["item_id"]: row for _, row in csv_rows(find_file(path, "items.csv.gz"), ITEM_COLUMNS)}
        self._users = {row["user_id"]: row for _, row in csv_rows(find_file(path, "users.csv.gz"), USER_COLUMNS)}
        self.row_count, last = 0, 0
        for _, row in csv_rows(self._ratings, RATING_COLUMNS):
            self.row_count += 1
            last = max(last, _seconds(row) or 0)
        if not last:
            raise BadDataset(f"{self._ratings} holds no rating with a time")
        self.last_time = datetime.fromtimestamp(last, UTC)

    def items(self) -> list[dict[str, Any]]:
        """The films."""
        return [
            {
                "itemId": f"ml-{item_id}",
                "title": film["title"] or f"Film {item_id}",
                "categories": [genre for genre in film["genres"].split("|") if genre],
            }
            for item_id, film in self._films.items()
        ]

    def chunks(self, start_row: int, shift: timedelta) -> Iterator[Chunk]:
        """Ratings in the order of the file; a viewer is introduced with the first one of this run."""
        chunk, introduced = Chunk(start_row), set[str]()
        for number, row in csv_rows(self._ratings, RATING_COLUMNS, start_row):
            self._read(chunk, number, row, shift, introduced)
            chunk.next_row = number + 1
            if chunk.next_row - start_row >= ROWS_PER_CHUNK:
                yield chunk
                start_row = chunk.next_row
                chunk = Chunk(start_row)
        if chunk.next_row > start_row:
            yield chunk

    def _read(self, chunk: Chunk, number: int, row: dict[str, str], shift: timedelta, introduced: set[str]) -> None:
        seconds, rating = _seconds(row), _rating(row)
        if problem := self._problem(row, seconds, rating):
            chunk.rejected.append(RejectedRow(number + 1, *problem))
            return
        moment = datetime.fromtimestamp(seconds or 0, UTC) + shift
        user = row["user_id"]
        if user not in introduced:
            introduced.add(user)
            chunk.actions.append(self._introduction(user, moment))
        chunk.actions += self._views(row, moment, rating)

    def _problem(self, row: dict[str, str], seconds: int | None, rating: int | None) -> tuple[str, str] | None:
        if not row["user_id"]:
            return "NO_CUSTOMER", "user_id is empty"
        if row["item_id"] not in self._films:
            return "UNKNOWN_ITEM", f"item {row['item_id']!r} is not in items.csv.gz"
        if rating is None:
            return "BAD_RATING", f"rating {row['rating']!r} is not {LOWEST} to {HIGHEST}"
        if seconds is None:
            return "BAD_TIME", f"timestamp {row['timestamp']!r} is not a number of seconds"
        return None

    def _introduction(self, user: str, moment: datetime) -> Action:
        known = self._users.get(user, {})
        traits: dict[str, Any] = {key: value for key, value in known.items() if value and key not in ("user_id", "age")}
        if known.get("age", "").isdecimal():
            traits["age"] = int(known["age"])
        return Action("identify", f"ml-identify-{user}", moment - 2 * BEFORE_RATING, user_id=f"ml-{user}", body=traits)

    def _views(self, row: dict[str, str], moment: datetime, rating: int | None) -> Iterator[Action]:
        user, item_id = row["user_id"], row["item_id"]
        film = {"product_id": f"ml-{item_id}", "name": self._films[item_id]["title"]}
        yield Action(
            call="track",
            message_id=f"ml-view-{user}-{item_id}",
            time=moment - BEFORE_RATING,
            user_id=f"ml-{user}",
            name="Product Viewed",
            body=film,
        )
        yield Action(
            call="track",
            message_id=f"ml-rate-{user}-{item_id}",
            time=moment,
            user_id=f"ml-{user}",
            name="Product Rated",
            body={**film, "rating": rating},
        )


def _seconds(row: dict[str, str]) -> int | None:
    return int(row["timestamp"]) if row["timestamp"].isdecimal() else None


def _rating(row: dict[str, str]) -> int | None:
    text = row["rating"]
    return int(text) if text.isdecimal() and LOWEST <= int(text) <= HIGHEST else None
