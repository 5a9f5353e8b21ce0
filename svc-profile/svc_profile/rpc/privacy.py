# SPDX-License-Identifier: Apache-2.0
"""Requests of data subjects."""

from collections.abc import Sequence
from uuid import UUID

from chassis.calls import current_caller, tell_of
from chassis.database import Database
from chassis.errors import Invalid
from chassis.identity import PREFIX, IdentityKey
from dangol.profile.v1 import privacy_pb2 as pb
from dangol.profile.v1.privacy_pb2_grpc import PrivacyServiceServicer
from grpc.aio import ServicerContext

from chassis import clock, pages
from svc_profile.domain.certificates import Signer
from svc_profile.domain.data_requests import Regime
from svc_profile.store.data_requests import Wanted
from svc_profile.store.suppressions import SuppressionStore
from svc_profile.usecases import certificates, data_exports, data_requests
from svc_profile.usecases.data_requests import Told
from svc_profile.usecases.suppressing import lift_suppression
from svc_profile.wire.privacy import (
    certificate_to_proto,
    data_request_to_proto,
    position_of_suppression,
    read_draft,
    read_signature,
    request_position,
    suppression_position,
    suppression_to_proto,
)


class PrivacyRpc(PrivacyServiceServicer):
    """Serves those who answer data subjects."""

    def __init__(
        self, database: Database, key: IdentityKey, signer: Signer, services: Sequence[str], regime: Regime
    ) -> None:
        self._database = database
        self._key = key
        self._signer = signer
        self._services = services
        self._regime = regime

    async def CreateDataRequest(
        self, request: pb.CreateDataRequestRequest, context: ServicerContext
    ) -> pb.CreateDataRequestResponse:
        """File a request."""
        now = clock.now()
        fragment, draft = self._key.resolve(request.profile).bytes, read_draft(request, self._regime, now)
        async with self._database.transaction() as tx:
            told = await data_requests.create_data_request(
                tx, fragment, draft, request_id=request.request_id, actor=current_caller().name, now=now
            )
        return pb.CreateDataRequestResponse(data_request=self._write(told))

    async def GetDataRequest(
        self, request: pb.GetDataRequestRequest, context: ServicerContext
    ) -> pb.GetDataRequestResponse:
        """Return one request."""
        async with self._database.snapshot() as tx:
            told = await data_requests.get_data_request(tx, request.data_request_id)
        return pb.GetDataRequestResponse(data_request=self._write(told))

    async def ListDataRequests(
        self, request: pb.ListDataRequestsRequest, context: ServicerContext
    ) -> pb.ListDataRequestsResponse:
        """Return requests, newest first."""
        size = pages.page_size(request.page_size)
        of = self._key.resolve(request.profile).bytes if request.profile else None
        wanted = Wanted(request.state, request.overdue)
        before = request_position(pages.decode_token(request.page_token))
        async with self._database.snapshot() as tx:
            found = await data_requests.list_data_requests(
                tx, wanted, of=of, now=clock.now(), before=before, most=size + 1
            )
        page, more = found[:size], found[size:]
        return pb.ListDataRequestsResponse(
            data_requests=[self._write(told) for told in page],
            next_page_token=pages.encode_token({"id": page[-1].request.data_request_id}) if more else "",
        )

    async def CancelDataRequest(
        self, request: pb.CancelDataRequestRequest, context: ServicerContext
    ) -> pb.CancelDataRequestResponse:
        """Take a request back."""
        async with self._database.transaction() as tx:
            told = await data_requests.cancel_data_request(tx, request.data_request_id, now=clock.now())
        return pb.CancelDataRequestResponse(data_request=self._write(told))

    async def RefuseDataRequest(
        self, request: pb.RefuseDataRequestRequest, context: ServicerContext
    ) -> pb.RefuseDataRequestResponse:
        """Refuse a request."""
        async with self._database.transaction() as tx:
            told = await data_requests.refuse_data_request(tx, request.data_request_id, request.reason, now=clock.now())
        return pb.RefuseDataRequestResponse(data_request=self._write(told))

    async def DownloadExport(
        self, request: pb.DownloadExportRequest, context: ServicerContext
    ) -> pb.DownloadExportResponse:
        """Return a piece of the file."""
        async with self._database.snapshot() as tx:
            piece = await data_exports.download(tx, request.data_request_id, request.index)
        if piece.profile is not None:
            tell_of([UUID(bytes=piece.profile)])
        return pb.DownloadExportResponse(data=piece.data, count=piece.count, total_bytes=piece.file_bytes)

    async def GetErasureCertificate(
        self, request: pb.GetErasureCertificateRequest, context: ServicerContext
    ) -> pb.GetErasureCertificateResponse:
        """Return the certificate of an erasure."""
        async with self._database.snapshot() as tx:
            certificate = await certificates.get_certificate(tx, request.data_request_id)
        return pb.GetErasureCertificateResponse(certificate=certificate_to_proto(certificate))

    async def VerifyCertificate(
        self, request: pb.VerifyCertificateRequest, context: ServicerContext
    ) -> pb.VerifyCertificateResponse:
        """Tell whether a certificate is genuine."""
        signature = read_signature(request.signature)
        async with self._database.snapshot() as tx:
            verdict = await certificates.verify(tx, self._signer, request.text, signature)
        return pb.VerifyCertificateResponse(signature_valid=verdict.signature_valid, known=verdict.known)

    async def GetCertificateKey(
        self, request: pb.GetCertificateKeyRequest, context: ServicerContext
    ) -> pb.GetCertificateKeyResponse:
        """Return the public key."""
        return pb.GetCertificateKeyResponse(public_key_pem=self._signer.public_key_pem, key_id=self._signer.key_id)

    async def ListSuppressions(
        self, request: pb.ListSuppressionsRequest, context: ServicerContext
    ) -> pb.ListSuppressionsResponse:
        """Return suppressed identifiers, by hash."""
        size = pages.page_size(request.page_size)
        before = suppression_position(pages.decode_token(request.page_token))
        async with self._database.snapshot() as tx:
            found = await SuppressionStore(tx).page(before, size + 1)
        page, more = found[:size], found[size:]
        return pb.ListSuppressionsResponse(
            suppressions=[suppression_to_proto(each) for each in page],
            next_page_token=pages.encode_token(position_of_suppression(page[-1])) if more else "",
        )

    async def LiftSuppression(
        self, request: pb.LiftSuppressionRequest, context: ServicerContext
    ) -> pb.LiftSuppressionResponse:
        """Let an identifier be collected again."""
        if request.identifier.startswith(PREFIX):
            raise Invalid.field("identifier", "must be <namespace>:<value>")
        fragment = self._key.resolve(request.identifier, "identifier").bytes
        async with self._database.transaction() as tx:
            await lift_suppression(tx, fragment)
        return pb.LiftSuppressionResponse()

    def _write(self, told: Told) -> pb.DataRequest:
        return data_request_to_proto(told.request, told.answers, self._services, clock.now())
