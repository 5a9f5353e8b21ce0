# SPDX-License-Identifier: Apache-2.0
"""Purposes, answers and the ledger of consent."""

from chassis.calls import current_caller
from chassis.clock import now, to_us
from chassis.database import Database
from chassis.errors import Invalid
from chassis.identity import PREFIX, Identifier, IdentityKey
from dangol.profile.v1 import consent_pb2 as pb
from dangol.profile.v1.consent_pb2_grpc import ConsentServiceServicer
from grpc.aio import ServicerContext

from chassis import pages
from svc_profile.domain.events import Name
from svc_profile.usecases import consent, purposes
from svc_profile.usecases.consent import Call, CustomerConsents, Decision
from svc_profile.wire.consent import (
    answer_from_proto,
    consents_to_proto,
    purpose_from_proto,
    purpose_to_proto,
    record_position,
    record_to_proto,
    update_of,
    verdict_to_proto,
)
from svc_profile.wire.values import read_time


class ConsentRpc(ConsentServiceServicer):
    """Keeps the catalogue of purposes and the ledger of consent."""

    def __init__(self, database: Database, key: IdentityKey) -> None:
        self._database = database
        self._key = key

    async def CreatePurpose(
        self, request: pb.CreatePurposeRequest, context: ServicerContext
    ) -> pb.CreatePurposeResponse:
        """Add a purpose."""
        async with self._database.transaction() as tx:
            purpose = await purposes.create_purpose(tx, purpose_from_proto(request.purpose, to_us(now())))
        return pb.CreatePurposeResponse(purpose=purpose_to_proto(purpose))

    async def GetPurpose(self, request: pb.GetPurposeRequest, context: ServicerContext) -> pb.GetPurposeResponse:
        """Return one purpose."""
        async with self._database.snapshot() as tx:
            purpose = await purposes.get_purpose(tx, request.purpose_id)
        return pb.GetPurposeResponse(purpose=purpose_to_proto(purpose))

    async def ListPurposes(self, request: pb.ListPurposesRequest, context: ServicerContext) -> pb.ListPurposesResponse:
        """Return all purposes."""
        async with self._database.snapshot() as tx:
            found = await purposes.list_purposes(tx)
        return pb.ListPurposesResponse(purposes=[purpose_to_proto(purpose) for purpose in found])

    async def UpdatePurpose(
        self, request: pb.UpdatePurposeRequest, context: ServicerContext
    ) -> pb.UpdatePurposeResponse:
        """Change a purpose."""
        given, fields = purpose_from_proto(request.purpose, to_us(now())), update_of(request)
        async with self._database.transaction() as tx:
            purpose = await purposes.update_purpose(tx, given, fields)
        return pb.UpdatePurposeResponse(purpose=purpose_to_proto(purpose))

    async def RecordConsent(
        self, request: pb.RecordConsentRequest, context: ServicerContext
    ) -> pb.RecordConsentResponse:
        """Write down what a customer said."""
        fragment = self._key.resolve(request.profile).bytes
        decisions = [
            Decision(each.purpose_id, answer_from_proto(each.answer), each.notice_version, each.locale)
            for each in request.decisions
        ]
        async with self._database.transaction() as tx:
            rows, found = await consent.record_consent(
                tx, fragment, self._name(request.profile, fragment), decisions, _call(request)
            )
        return pb.RecordConsentResponse(
            records=[record_to_proto(row, found.known_as) for row in rows], consents=_told(found)
        )

    def _name(self, reference: str, fragment: bytes) -> Name | None:
        """Return the identifier in a reference, by which somebody may become known."""
        if reference.startswith(PREFIX):
            return None
        namespace, _, value = reference.partition(":")
        identifier = Identifier(namespace, self._key.types.normalise(namespace, value) or value)
        return Name(fragment, identifier.namespace, identifier.value)

    async def GetConsents(self, request: pb.GetConsentsRequest, context: ServicerContext) -> pb.GetConsentsResponse:
        """Say what a customer consents to, and why."""
        fragment = self._key.resolve(request.profile).bytes
        async with self._database.snapshot() as tx:
            found = await consent.get_consents(tx, fragment, to_us(now()))
        return pb.GetConsentsResponse(consents=_told(found))

    async def ListConsentRecords(
        self, request: pb.ListConsentRecordsRequest, context: ServicerContext
    ) -> pb.ListConsentRecordsResponse:
        """Return what a customer said."""
        size = pages.page_size(request.page_size)
        fragment = self._key.resolve(request.profile).bytes
        before = record_position(pages.decode_token(request.page_token))
        async with self._database.snapshot() as tx:
            rows, known_as = await consent.list_records(
                tx, fragment, purpose_id=request.purpose_id, before=before, most=size + 1
            )
        page, more = rows[:size], rows[size:]
        return pb.ListConsentRecordsResponse(
            records=[record_to_proto(row, known_as) for row in page],
            next_page_token=pages.encode_token({"before": page[-1].sequence}) if more else "",
        )

    async def VerifyConsentLedger(
        self, request: pb.VerifyConsentLedgerRequest, context: ServicerContext
    ) -> pb.VerifyConsentLedgerResponse:
        """Prove the chain."""
        async with self._database.snapshot() as tx:
            verdict = await consent.verify_ledger(tx, request.after_sequence)
        return verdict_to_proto(verdict)


def _call(request: pb.RecordConsentRequest) -> Call:
    now_us = to_us(now())
    given = request.HasField("decision_time")
    time_us = read_time(request.decision_time, "decision_time") if given else now_us
    if time_us > now_us:
        raise Invalid.field("decision_time", "must not lie in the future")
    return Call(current_caller().name, request.request_id, request.channel, request.actor, time_us, now_us)


def _told(found: CustomerConsents) -> pb.Consents:
    return consents_to_proto(found.profile, found.consents, found.rows, found.known_as, restricted=found.restricted)
