# SPDX-License-Identifier: Apache-2.0
"""Short histories of many owners as bytes: unpacked together, worked on as arrays, packed again.

One numpy call costs as much as ten rows; so histories are handled some hundred owners at a time, never one by one.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

ROW = np.dtype([("item", "<i4"), ("weight", "<i4"), ("time_us", "<i8")])
"""One item of a history: its number, its summed weight in thousandths, when it was last dealt with."""

MOST_WEIGHT = 2**31 - 1

Rows = NDArray[np.void]
Owners = NDArray[np.int64]
"""For each row the position of its owner in the list that was asked about."""


def unpack(packed: Sequence[bytes]) -> tuple[Owners, Rows]:
    """Return the rows of several owners, one owner after the other."""
    lengths = np.fromiter(map(len, packed), np.int64, len(packed)) // ROW.itemsize
    return np.repeat(np.arange(len(packed)), lengths), np.frombuffer(b"".join(packed), ROW)


def pack(owners: Owners, rows: Rows, count: int) -> list[bytes]:
    """Return each owner's rows; rows stand in the order of their owners."""
    return split(owners, np.ascontiguousarray(rows).tobytes(), ROW.itemsize, count)


def split(owners: Owners, data: bytes, size: int, count: int) -> list[bytes]:
    """Cut rows of `size` bytes into one piece for each owner."""
    ends = (np.searchsorted(owners, np.arange(count), side="right") * size).tolist()
    return [data[start:end] for start, end in pairwise([0, *ends])]


def keys(owners: Owners, items: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return one number for each owner and item, in the order of owners and then items."""
    return owners << 32 | items


def are_in(these: NDArray[np.int64], those: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which keys are among others; both stand in ascending order."""
    if not len(those):
        return np.zeros(len(these), bool)
    at = np.minimum(np.searchsorted(those, these), len(those) - 1)
    found: NDArray[np.bool_] = those[at] == these
    return found


def newest(owners: Owners, rows: Rows) -> tuple[Owners, Rows]:
    """Keep the last row of each owner and item; answer in the order of owners and items."""
    given = keys(owners, rows["item"])
    order = np.argsort(given, kind="stable")
    ordered = given[order]
    last = order[np.append(ordered[1:] != ordered[:-1], True)] if len(order) else order
    return owners[last], rows[last]


def summed(owners: Owners, rows: Rows) -> tuple[Owners, Rows]:
    """Add up the rows of each owner and item; answer in the order of owners and items."""
    given = keys(owners, rows["item"])
    order = np.argsort(given, kind="stable")
    ordered = given[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(order) else order
    if len(starts) == len(order):
        return owners[order], rows[order]
    folded = rows[order[starts]]
    weights = np.add.reduceat(rows["weight"][order].astype(np.int64), starts)
    folded["weight"] = np.clip(weights, -MOST_WEIGHT, MOST_WEIGHT)
    folded["time_us"] = np.maximum.reduceat(rows["time_us"][order], starts)
    return owners[order[starts]], folded


def latest(owners: Owners, rows: Rows, most: int, ranks: NDArray[np.int64]) -> tuple[Owners, Rows]:
    """Keep the latest rows of each owner, at most `most`; among equally late ones those of the lowest rank."""
    if not len(rows) or int(np.bincount(owners).max()) <= most:
        return owners, rows
    order = np.lexsort((ranks[rows["item"]], -rows["time_us"], owners))
    ordered = owners[order]
    position = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    kept = np.sort(order[position < most])
    return owners[kept], rows[kept]
