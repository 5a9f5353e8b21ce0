# SPDX-License-Identifier: Apache-2.0
"""Purposes, answers and the ledger of consent."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from chassis.clock import timestamp_from_us
from chassis.errors import Invalid
from dangol.options.v1 import options_pb2
from dangol.profile.v1 import consent_pb2 as pb

from svc_profile.domain.consent import Answer
from svc_profile.domain.events import FragmentKey
from svc_profile.domain.ledger import Record, Row, Verdict
from svc_profile.domain.profiles import KnownAs
from svc_profile.domain.purposes import Consent, Notice, Purpose, Reason, State
from svc_profile.wire.profiles import identifier_to_proto, profile_id
from svc_profile.wire.values import in_bigint, read_time, require_empty

MAX_FRAGMENTS = 1_000

CHANGEABLE = (
    "display_name",
    "kind",
    "legal_basis",
    "granted_by_default",
    "expiry_months",
    "minimum_age",
    "categories",
    "notices",
)
"""Fields of a purpose that an update may name."""

_ANSWERS: Mapping[Answer, pb.ConsentAnswer.ValueType] = {
    Answer.GRANTED: pb.CONSENT_ANSWER_GRANTED,
    Answer.DENIED: pb.CONSENT_ANSWER_DENIED,
    Answer.WITHDRAWN: pb.CONSENT_ANSWER_WITHDRAWN,
}
_FROM_PROTO = {number: answer for answer, number in _ANSWERS.items()}

_REASONS: Mapping[Reason, pb.ConsentReason.ValueType] = {
    Reason.ANSWERED: pb.CONSENT_REASON_ANSWERED,
    Reason.DEFAULT: pb.CONSENT_REASON_DEFAULT,
    Reason.EXPIRED: pb.CONSENT_REASON_EXPIRED,
    Reason.MINIMUM_AGE: pb.CONSENT_REASON_MINIMUM_AGE,
    Reason.RESTRICTED: pb.CONSENT_REASON_RESTRICTED,
}


def purpose_from_proto(message: pb.Purpose, now_us: int) -> Purpose:
    """Read a purpose; a notice without a time is shown from now on."""
    return Purpose(
        purpose_id=message.purpose_id,
        display_name=message.display_name,
        kind=message.kind,
        legal_basis=message.legal_basis,
        granted_by_default=message.granted_by_default,
        expiry_months=message.expiry_months,
        minimum_age=message.minimum_age,
        categories=tuple(dict.fromkeys(message.categories)),
        notices=tuple(_notice(each, now_us) for each in message.notices),
    )


def _notice(message: pb.Notice, now_us: int) -> Notice:
    given = message.HasField("effective_time")
    effective_us = read_time(message.effective_time, "purpose.notices.effective_time") if given else now_us
    return Notice(message.version, message.locale, message.title, message.body, effective_us)


def purpose_to_proto(purpose: Purpose) -> pb.Purpose:
    """Write a purpose."""
    return pb.Purpose(
        purpose_id=purpose.purpose_id,
        display_name=purpose.display_name,
        kind=options_pb2.Purpose.ValueType(purpose.kind),
        legal_basis=pb.LegalBasis.ValueType(purpose.legal_basis),
        granted_by_default=purpose.granted_by_default,
        expiry_months=purpose.expiry_months,
        minimum_age=purpose.minimum_age,
        categories=purpose.categories,
        notices=[
            pb.Notice(
                version=notice.version,
                locale=notice.locale,
                title=notice.title,
                body=notice.body,
                effective_time=timestamp_from_us(notice.effective_us),
            )
            for notice in purpose.notices
        ],
        updated_time=timestamp_from_us(purpose.updated_us),
    )


def update_of(request: pb.UpdatePurposeRequest) -> list[str]:
    """Return what an update asks for: the fields of its mask, or every one that is set."""
    paths = set(request.update_mask.paths) - {"purpose_id"}
    unknown = sorted(paths - set(CHANGEABLE))
    if unknown:
        raise Invalid.field("update_mask", f"{unknown[0]} cannot be changed; these can: {', '.join(CHANGEABLE)}")
    given = {field.name for field, _ in request.purpose.ListFields()}
    return [field for field in CHANGEABLE if field in (paths or given)]


def purpose_saved(purpose: Purpose, revision: int) -> pb.PurposeSaved:
    """Say what holds for customers who said nothing."""
    return pb.PurposeSaved(
        purpose_id=purpose.purpose_id,
        kind=options_pb2.Purpose.ValueType(purpose.kind),
        granted_by_default=purpose.granted_by_default,
        revision=revision,
    )


def consents_changed(
    profile: FragmentKey, fragments: Sequence[FragmentKey], state: State, revision: int
) -> Iterator[pb.ConsentsChanged]:
    """Say what a customer consents to now, in messages of at most 1,000 fragments."""
    for start in range(0, len(fragments), MAX_FRAGMENTS):
        yield pb.ConsentsChanged(
            profile_id=profile,
            fragment_ids=fragments[start : start + MAX_FRAGMENTS],
            granted_purpose_ids=state.granted,
            refused_purpose_ids=state.refused,
            restricted=state.restricted,
            revision=revision,
        )


def consents_expiring(profile: FragmentKey, expiries: Collection[tuple[str, int]]) -> pb.ConsentsExpiring:
    """Say which grants of a customer end soon."""
    return pb.ConsentsExpiring(
        profile_id=profile_id(profile),
        expiries=[
            pb.ConsentExpiry(purpose_id=purpose_id, expire_time=timestamp_from_us(expires_us))
            for purpose_id, expires_us in sorted(expiries)
        ],
    )


def answer_from_proto(number: pb.ConsentAnswer.ValueType) -> Answer:
    """Read an answer."""
    return _FROM_PROTO[number]


def record_to_proto(row: Row, known_as: Mapping[FragmentKey, KnownAs]) -> pb.ConsentRecord:
    """Write a row of the ledger."""
    message = pb.ConsentRecord(
        sequence=row.sequence, hash=row.hash.hex(), redaction_request_id=row.redaction_request_id
    )
    if row.record is not None:
        _fill(message, row.record)
        if row.record.fragment in known_as:
            message.identifier.CopyFrom(identifier_to_proto(known_as[row.record.fragment]))
    return message


def _fill(message: pb.ConsentRecord, record: Record) -> None:
    message.purpose_id = record.purpose_id
    message.answer = _ANSWERS[record.answer]
    message.notice_version = record.notice_version
    message.locale = record.locale
    message.channel = record.channel
    message.actor = record.actor
    message.source = record.source
    message.message_id = record.message_id
    message.reason = record.reason
    message.decision_time.CopyFrom(timestamp_from_us(record.time_us))
    message.received_time.CopyFrom(timestamp_from_us(record.received_time_us))
    message.recorded_time.CopyFrom(timestamp_from_us(record.recorded_us))


def consents_to_proto(
    profile: FragmentKey,
    consents: Sequence[Consent],
    rows: Mapping[int, Row],
    known_as: Mapping[FragmentKey, KnownAs],
    *,
    restricted: bool,
) -> pb.Consents:
    """Write what a customer consents to, with the rows that decide."""
    return pb.Consents(
        profile_id=profile_id(profile),
        consents=[_consent_to_proto(consent, rows, known_as) for consent in consents],
        restricted=restricted,
    )


def _consent_to_proto(consent: Consent, rows: Mapping[int, Row], known_as: Mapping[FragmentKey, KnownAs]) -> pb.Consent:
    message = pb.Consent(purpose_id=consent.purpose_id, granted=consent.granted, reason=_REASONS[consent.reason])
    if consent.entry is not None and consent.entry.sequence in rows:
        message.record.CopyFrom(record_to_proto(rows[consent.entry.sequence], known_as))
    if consent.expires_us is not None:
        message.expire_time.CopyFrom(timestamp_from_us(consent.expires_us))
    return message


def verdict_to_proto(verdict: Verdict) -> pb.VerifyConsentLedgerResponse:
    """Write what verifying the ledger found."""
    return pb.VerifyConsentLedgerResponse(
        valid=verdict.valid,
        record_count=verdict.record_count,
        redacted_count=verdict.redacted_count,
        broken_sequence=verdict.broken_sequence,
        problem=verdict.problem,
        hash=verdict.hash.hex(),
    )


def record_position(token: Mapping[str, Any]) -> int | None:
    """Read where a page of the ledger begins; None is the beginning."""
    match token:
        case {"before": int(before)}:
            return in_bigint(before)
    require_empty(token)
    return None
