# SPDX-License-Identifier: Apache-2.0
"""What rules ask of a customer: the columns of one row per profile, each of them looked up once.

Each lateral aggregate finds one profile by index, so that the cost of a profile is the same for one and for a million,
and no estimate of the planner can make it quadratic.
"""

from typing import Any

import msgspec

from svc_segmentation.domain import expressions as ex
from svc_segmentation.domain.behaviour import event_key

NOW = "CAST(:now_us AS bigint)"
NULL = "CAST('null' AS jsonb)"

_OF_FRAGMENTS = """
    CROSS JOIN LATERAL (
        SELECT {}
        FROM fragment_profiles AS f JOIN {} ON {}
        WHERE f.profile_id = p.profile_id
    ) AS {}"""
_SEEN = _OF_FRAGMENTS.format(
    "min(d.first_us) AS first_seen_us, max(d.last_us) AS last_seen_us",
    "event_days AS d",
    "d.fragment_id = f.fragment_id",
    "seen",
)
_STATED = _OF_FRAGMENTS.format(
    "merged_traits(CASE WHEN s.decided_traits IS NULL THEN s.traits ELSE s.traits || s.decided_traits END) AS traits",
    "fragment_traits AS s",
    "s.fragment_id = f.fragment_id",
    "stated",
)


class Facts:
    """Collects columns and bound parameters while rules are written."""

    def __init__(self) -> None:
        self.parameters: dict[str, Any] = {}
        self._bound: dict[tuple[str, str], str] = {}
        self._behaviour: dict[str, str] = {}
        self._event_keys: set[int] = set()
        self._traits: dict[ex.Trait, str] = {}
        self._seen = False

    def bind(self, value: object, sql_type: str) -> str:
        """Return a parameter with a value; equal ones are bound once."""
        key = (repr(value), sql_type)
        if key not in self._bound:
            name = f"p{len(self.parameters)}"
            self.parameters[name] = value
            self._bound[key] = f"CAST(:{name} AS {sql_type})"
        return self._bound[key]

    def trait(self, trait: ex.Trait) -> str:
        """Return the column of a trait, or of what lies inside one; NULL when it is missing or null."""
        return self._traits.setdefault(trait, f"t{len(self._traits)}")

    def seen(self, *, last: bool) -> str:
        """Return the column of the time at which a customer was seen first, or last."""
        self._seen = True
        return "last_seen_us" if last else "first_seen_us"

    def edge(self, window_us: int) -> str:
        """Return the moment that the events of a window are later than."""
        return f"({NOW} - {self.bind(window_us, 'bigint')})"

    def of_events(self, event: str, aggregate: str, after: str = "") -> str:
        """Return the column of an aggregate over the days `d` of one event, or those that go on after a moment."""
        key = event_key(event)
        self._event_keys.add(key)
        also = f" AND d.last_us > {after}" if after else ""
        filtered = f"{aggregate} FILTER (WHERE d.event_key = {self.bind(key, 'bigint')}{also})"
        return self._behaviour.setdefault(filtered, f"b{len(self._behaviour)}")

    def table(self) -> str:
        """Return the table `facts`, with one row for each profile of a table `people (profile_id)`."""
        columns, laterals = ["p.profile_id"], []
        if self._behaviour:
            columns += self._behaviour.values()
            laterals.append(self._of_days())
        if self._seen:
            columns += ["first_seen_us", "last_seen_us"]
            laterals.append(_SEEN)
        if self._traits:
            columns += [f"{self._value(trait)} AS {column}" for trait, column in self._traits.items()]
            laterals.append(_STATED)
        # OFFSET 0 keeps the planner from writing a column out again wherever it is used.
        return f"facts AS (\n    SELECT {', '.join(columns)} FROM people AS p{''.join(laterals)} OFFSET 0\n)"  # noqa: S608

    def _of_days(self) -> str:
        aggregates = ",\n            ".join(f"{sql} AS {name}" for sql, name in self._behaviour.items())
        keys = self.bind(sorted(self._event_keys), "bigint[]")
        where = f"d.fragment_id = f.fragment_id AND d.event_key = ANY ({keys})"
        return _OF_FRAGMENTS.format(aggregates, "event_days AS d", where, "behaviour")

    def _value(self, trait: ex.Trait) -> str:
        value = f"stated.traits -> {self.bind(trait.name, 'text')} -> 0"
        if trait.path:
            # Strict and silent: a position in what is no list, or a name in what is no object, is missing.
            path = self.bind("strict $" + "".join(map(_step, trait.path)), "jsonpath")
            value = f"jsonb_path_query_first({value}, {path}, '{{}}', TRUE)"
        return f"NULLIF({value}, {NULL})"


def _step(step: str | int) -> str:
    return f"[{step}]" if isinstance(step, int) else f".{msgspec.json.encode(step).decode()}"
