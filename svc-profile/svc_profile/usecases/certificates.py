# SPDX-License-Identifier: Apache-2.0
"""Show and verify certificates of erasure."""

from dataclasses import dataclass

from chassis.database import Transaction

from svc_profile.domain.certificates import Certificate, Signer
from svc_profile.store.certificates import CertificateStore
from svc_profile.store.data_requests import DataRequestStore


@dataclass(frozen=True)
class Verdict:
    """What can be said of a certificate."""

    signature_valid: bool
    known: bool


async def get_certificate(tx: Transaction, data_request_id: str) -> Certificate:
    """Return the certificate of an erasure; raises `NotFound` or `FailedPrecondition`."""
    await DataRequestStore(tx).get(data_request_id)
    return await CertificateStore(tx).get(data_request_id)


async def verify(tx: Transaction, signer: Signer, text: str, signature: bytes) -> Verdict:
    """Hold a certificate against the key, and against what was given out."""
    return Verdict(signer.fits(text, signature), await CertificateStore(tx).knows(text))
