# SPDX-License-Identifier: Apache-2.0
"""The gate of consent: whether a method may use what is known of a customer, by what this service heard of it.

svc-profile announces what customers consented to, by fragment; every service with a database keeps it. A method that
names a purpose and a `profile` is let through, refused, or told to answer with nothing of the customer in it.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from uuid import UUID

from dangol.operations.v1 import operations_pb2
from dangol.options.v1 import options_pb2
from dangol.profile.v1.consent_pb2 import ConsentsChanged, PurposeSaved
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from chassis.database import Transaction
from chassis.errors import PermissionDenied
from chassis.streams import Subscription

ANALYTICS = options_pb2.PURPOSE_ANALYTICS
PERSONALIZATION = options_pb2.PURPOSE_PERSONALIZATION
MARKETING = options_pb2.PURPOSE_MARKETING

GRANTED = operations_pb2.ACCESS_OUTCOME_GRANTED
DENIED = operations_pb2.ACCESS_OUTCOME_DENIED
IMPERSONAL = operations_pb2.ACCESS_OUTCOME_IMPERSONAL

_GATED = frozenset({ANALYTICS, PERSONALIZATION, MARKETING})
"""Purposes that a customer can refuse. Serving the customer is none: it is the customer's own wish."""

_NAMES: Mapping[int, str] = {
    number: name.removeprefix("PURPOSE_").lower() for name, number in options_pb2.Purpose.items()
}

# Each channel of marketing is a purpose of its own, and one is enough to send anything at all; of the other kinds, all
# purposes must be granted. A kind without any purpose is refused.
_REFUSED = """
SELECT f.fragment_id
FROM unnest(CAST(:fragments AS uuid[])) AS f (fragment_id)
LEFT JOIN fragment_consents c USING (fragment_id)
WHERE coalesce(c.restricted, false) OR NOT coalesce((
    SELECT CASE WHEN CAST(:one_is_enough AS boolean) THEN bool_or(g.granted) ELSE bool_and(g.granted) END
    FROM purpose_defaults p CROSS JOIN LATERAL (
        SELECT CASE WHEN p.purpose_id = ANY (c.refused) THEN false WHEN p.purpose_id = ANY (c.granted) THEN true
            ELSE p.granted_by_default END
    ) AS g (granted)
    WHERE p.kind = CAST(:kind AS smallint)
), false)
"""

_LEARN = """
WITH given AS (
    SELECT DISTINCT ON (fragment_id) *
    FROM unnest(
        CAST(:fragments AS uuid[]), CAST(:granted AS text[]), CAST(:refused AS text[]),
        CAST(:restricted AS boolean[]), CAST(:revisions AS bigint[])
    ) AS g (fragment_id, granted, refused, restricted, revision)
    ORDER BY fragment_id, revision DESC
)
INSERT INTO fragment_consents AS c (fragment_id, granted, refused, restricted, revision)
SELECT fragment_id, string_to_array(granted, ','), string_to_array(refused, ','), restricted, revision
FROM given ORDER BY fragment_id
ON CONFLICT (fragment_id) DO UPDATE SET
    granted = excluded.granted, refused = excluded.refused,
    restricted = excluded.restricted, revision = excluded.revision
WHERE c.revision < excluded.revision
"""

_LEARN_PURPOSES = """
WITH given AS (
    SELECT DISTINCT ON (purpose_id) *
    FROM unnest(
        CAST(:purposes AS text[]), CAST(:kinds AS smallint[]), CAST(:defaults AS boolean[]),
        CAST(:revisions AS bigint[])
    ) AS g (purpose_id, kind, granted_by_default, revision)
    ORDER BY purpose_id, revision DESC
)
INSERT INTO purpose_defaults AS p (purpose_id, kind, granted_by_default, revision)
SELECT * FROM given ORDER BY purpose_id
ON CONFLICT (purpose_id) DO UPDATE SET
    kind = excluded.kind, granted_by_default = excluded.granted_by_default, revision = excluded.revision
WHERE p.revision < excluded.revision
"""

_impersonal: ContextVar[bool] = ContextVar("dangol_impersonal", default=False)


def impersonal() -> bool:
    """Tell whether the call in hand must be answered with nothing of the customer in it."""
    return _impersonal.get()


@contextmanager
def answering(outcome: int) -> Iterator[None]:
    """Let `impersonal` say what the gate decided, until the end of the block."""
    token = _impersonal.set(outcome == IMPERSONAL)
    try:
        yield
    finally:
        _impersonal.reset(token)


@dataclass(frozen=True)
class Use:
    """What a method uses personal data for."""

    purpose: int
    is_impersonal_without: bool
    """True when it answers without consent all the same, with nothing of the customer in it."""
    reference: Callable[[Message], str]
    """Finds the profile reference in a request; empty when it names nobody."""

    @property
    def is_gated(self) -> bool:
        """True when the customer can refuse it."""
        return self.purpose in _GATED


def use_of(method: MethodDescriptor) -> Use | None:
    """Read from the contract what a method uses personal data for; None when it uses none."""
    options = method.GetOptions().Extensions
    purpose = options[options_pb2.purpose]
    if purpose == options_pb2.PURPOSE_UNSPECIFIED:
        return None
    without = options[options_pb2.without_consent]
    return Use(purpose, without == options_pb2.WITHOUT_CONSENT_IMPERSONAL, _reference_in(method.input_type))


@cache
def _reference_in(descriptor: Descriptor) -> Callable[[Message], str]:
    """Find the field `profile` of a request, or of a resource in it."""
    if _is_text(descriptor.fields_by_name.get("profile")):
        return lambda request: str(request.profile)  # type: ignore[attr-defined]
    for field in descriptor.fields:
        inner = field.message_type
        if inner is not None and not field.is_repeated and _is_text(inner.fields_by_name.get("profile")):
            name = field.name
            return lambda request: str(getattr(request, name).profile)
    return lambda request: ""


def _is_text(field: FieldDescriptor | None) -> bool:
    return field is not None and field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated


async def refused(tx: Transaction, fragments: Collection[UUID], purpose: int) -> set[UUID]:
    """Return those of some fragments whose customers have not granted a purpose, as far as this service heard."""
    if not fragments:
        return set()
    rows = await tx.rows(_REFUSED, fragments=list(fragments), kind=purpose, one_is_enough=purpose == MARKETING)
    return {row.fragment_id for row in rows}


def missing(use: Use) -> PermissionDenied:
    """Return the error of a call that the customer's consent is missing for."""
    name = _NAMES[use.purpose]
    return PermissionDenied(
        f"the customer has not granted the purpose {name}", reason="CONSENT_MISSING", metadata={"purpose": name}
    )


async def learn_consents(tx: Transaction, messages: Sequence[ConsentsChanged]) -> None:
    """Keep what customers consented to; the highest revision of a fragment wins."""
    rows = [(fragment, message) for message in messages for fragment in message.fragment_ids]
    if rows:
        await tx.execute(
            _LEARN,
            fragments=[UUID(bytes=fragment) for fragment, _ in rows],
            # Ids of purposes have no comma, and an array of arrays would have to be rectangular.
            granted=[",".join(message.granted_purpose_ids) for _, message in rows],
            refused=[",".join(message.refused_purpose_ids) for _, message in rows],
            restricted=[message.restricted for _, message in rows],
            revisions=[message.revision for _, message in rows],
        )


async def learn_purposes(tx: Transaction, messages: Sequence[PurposeSaved]) -> None:
    """Keep what is taken to be granted by customers who said nothing."""
    await tx.execute(
        _LEARN_PURPOSES,
        purposes=[message.purpose_id for message in messages],
        kinds=[message.kind for message in messages],
        defaults=[message.granted_by_default for message in messages],
        revisions=[message.revision for message in messages],
    )


SUBSCRIPTIONS = (
    Subscription(ConsentsChanged, learn_consents, name="consents"),
    Subscription(PurposeSaved, learn_purposes, name="purposes"),
)
"""What every service with a database hears."""
