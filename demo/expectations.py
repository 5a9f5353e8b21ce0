# SPDX-License-Identifier: Apache-2.0
"""What profiles must show when everything that was sent has been processed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping

from demo.actions import Action

CHECKED_CUSTOMERS = 12
SHOWN_ORDERS, SHOWN_EVENTS = 4, 60


class Expectations:
    """Follows what is sent, as the platform should understand it: a device belongs to who logged in on it."""

    def __init__(self) -> None:
        self._of_device: dict[str, Counter[str]] = defaultdict(Counter)
        self._of_user: dict[str, Counter[str]] = defaultdict(Counter)
        self._owner: dict[str, str] = {}

    def note(self, action: Action) -> None:
        """Count one action that was sent."""
        if action.user_id:
            self._of_user[action.user_id][action.counted_name] += 1
            if action.anonymous_id:
                self._owner[action.anonymous_id] = action.user_id
        elif action.anonymous_id:
            self._of_device[action.anonymous_id][action.counted_name] += 1

    def counts(self) -> dict[str, Counter[str]]:
        """Event counts by user id, with what their devices did before they logged in."""
        total = defaultdict(Counter, {user: Counter(counts) for user, counts in self._of_user.items()})
        for device, user in self._owner.items():
            total[user].update(self._of_device.get(device, Counter()))
        return total

    def sample(self) -> dict[str, Counter[str]]:
        """Some customers whose profiles are compared: the busiest, and others from all over."""
        counts = self.counts()
        users = sorted(counts, key=lambda user: (-counts[user].total(), user))
        step = max(1, len(users) // CHECKED_CUSTOMERS)
        return {user: counts[user] for user in users[::step][:CHECKED_CUSTOMERS]}

    def showcase(self, preferred: Collection[str] = ()) -> str | None:
        """A customer worth looking at: several orders, and still much in the shop that is new to them."""
        counts = self.counts()

        def interest(user: str) -> tuple[int, bool, int, str]:
            orders = min(counts[user]["Order Completed"], SHOWN_ORDERS)
            return orders, user in preferred, -abs(counts[user].total() - SHOWN_EVENTS), user

        return max(counts, key=interest, default=None)


def is_reached(expected: Mapping[str, int], shown: Mapping[str, int]) -> bool:
    """Whether a profile shows at least what was sent; earlier runs may have added more."""
    return all(shown.get(name, 0) >= count for name, count in expected.items())
