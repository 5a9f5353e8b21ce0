# SPDX-License-Identifier: Apache-2.0
"""An export: customers as rows of a table, as they are or under pseudonyms."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from typing import Any

from svc_profile.domain.events import FragmentKey
from svc_profile.domain.profiles import Profile

IDENTIFIERS, TRAITS, EVENT_COUNTS, REVENUE, GROUPS, TIMES, CONSENTS, COMPUTED_TRAITS = range(1, 9)
"""Parts of a customer, with the numbers of the contract."""

CSV, PARQUET = 1, 2
"""Formats, with the numbers of the contract."""

_DAY_US = 86_400_000_000
_PSEUDONYM_BYTES = 16


class State(IntEnum):
    """What an export is doing; the numbers are those of the contract."""

    RUNNING = 1
    COMPLETED = 2
    FAILED = 3
    CANCELLED = 4
    EXPIRED = 5


@dataclass(frozen=True)
class ExportPlan:
    """What was asked for."""

    export_id: str
    format: int
    fields: tuple[int, ...]
    trait_names: tuple[str, ...]
    segment_id: str
    fragments: tuple[FragmentKey, ...]
    """The customers who were named; none means all, or the members of the segment."""
    is_list: bool
    pseudonymise: bool
    purpose: str
    byte_order_mark: bool


@dataclass(frozen=True)
class ExportJob:
    """An export as it is kept."""

    plan: ExportPlan
    state: State
    create_time_us: int
    end_time_us: int | None
    expire_time_us: int
    cursor: FragmentKey
    """The last profile that was looked at."""
    written_profiles: int
    withheld_profiles: int
    total_profiles: int
    file_bytes: int
    key: bytes
    """What pseudonyms are made with; forgotten when the export ends."""
    failure: str


@dataclass(frozen=True)
class Customer:
    """What is known of a customer, as far as it was asked for."""

    profile: Profile
    consents: Mapping[str, bool]
    computed_traits: Mapping[str, Any]


class Pseudonyms:
    """Other names for customers, the same for the same customer within one export, and nobody's outside of it."""

    def __init__(
        self, key: bytes, is_personal_name: Callable[[str], bool], is_personal_text: Callable[[str], bool]
    ) -> None:
        """The two tell which traits are personal, whatever they hold, and which texts are, wherever they stand."""
        self._key = key
        self._is_personal_name = is_personal_name
        self._is_personal_text = is_personal_text

    def of(self, kind: str, value: str) -> str:
        """Replace a name: a keyed hash (BLAKE2b, RFC 7693) of its kind and value."""
        return blake2b(f"{kind}\x00{value}".encode(), key=self._key, digest_size=_PSEUDONYM_BYTES).hexdigest()

    def traits(self, traits: Mapping[str, Any]) -> dict[str, Any]:
        """Leave out what is personal: by its name, at any depth, or because it looks like an address or a number."""
        return {name: kept for name, value in traits.items() if (kept := self._kept(name, value)) is not None}

    def _kept(self, name: str, value: Any) -> Any:
        if self._is_personal_name(name):
            return None
        if isinstance(value, Mapping):
            return self.traits(value)
        if isinstance(value, list):
            return [kept for element in value if (kept := self._kept(name, element)) is not None]
        if isinstance(value, str) and self._is_personal_text(value):
            return None
        return value


def columns_of(plan: ExportPlan, namespaces: Sequence[str]) -> list[str]:
    """Return the names of the columns, in order."""
    columns = ["profile_id"]
    if IDENTIFIERS in plan.fields:
        columns += namespaces
    if TIMES in plan.fields:
        columns += ["first_seen_time", "last_seen_time"]
    columns += [f"trait.{name}" for name in plan.trait_names]
    names = {
        TRAITS: "traits",
        EVENT_COUNTS: "event_counts",
        REVENUE: "revenue",
        GROUPS: "groups",
        CONSENTS: "consents",
        COMPUTED_TRAITS: "computed_traits",
    }
    return columns + [name for field, name in names.items() if field in plan.fields]


def row_of(
    customer: Customer, profile_id: str, plan: ExportPlan, namespaces: Sequence[str], pseudonyms: Pseudonyms | None
) -> list[Any]:
    """Return the values of a customer in the order of the columns: texts, lists, mappings, times in microseconds."""
    profile = customer.profile
    traits: Mapping[str, Any] = pseudonyms.traits(profile.traits) if pseudonyms else profile.traits
    row: list[Any] = [pseudonyms.of("profile_id", profile_id) if pseudonyms else profile_id]
    if IDENTIFIERS in plan.fields:
        row += [_identifiers(profile, namespace, pseudonyms) for namespace in namespaces]
    if TIMES in plan.fields:
        row += [_time(profile.first_seen_us, pseudonyms), _time(profile.last_seen_us, pseudonyms)]
    row += [traits.get(name) for name in plan.trait_names]
    if TRAITS in plan.fields:
        row.append(traits)
    if EVENT_COUNTS in plan.fields:
        row.append(profile.counts)
    if REVENUE in plan.fields:
        row.append({currency: f"{value.normalize():f}" for currency, value in profile.revenue.items()})
    if GROUPS in plan.fields:
        row.append([pseudonyms.of("group", group) if pseudonyms else group for group in profile.groups])
    if CONSENTS in plan.fields:
        row.append(customer.consents)
    if COMPUTED_TRAITS in plan.fields:
        row.append(pseudonyms.traits(customer.computed_traits) if pseudonyms else customer.computed_traits)
    return row


def _identifiers(profile: Profile, namespace: str, pseudonyms: Pseudonyms | None) -> list[str]:
    values = [known.value for known in profile.known_as if known.namespace == namespace]
    return sorted(pseudonyms.of(namespace, value) for value in values) if pseudonyms else values


def _time(time_us: int, pseudonyms: Pseudonyms | None) -> int:
    """A moment can tell who somebody is; under pseudonyms a day has to do."""
    return time_us - time_us % _DAY_US if pseudonyms else time_us
