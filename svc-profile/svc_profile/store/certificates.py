# SPDX-License-Identifier: Apache-2.0
"""Certificates of erasure, chained."""

from typing import Any

from chassis.database import Transaction
from chassis.errors import FailedPrecondition

from svc_profile.domain.certificates import FIRST, Certificate, hash_of

# Each text names the hash of the one before it; a row that does not is where the chain breaks.
_BROKEN = """
SELECT EXISTS (
    SELECT FROM (
        SELECT CAST(text AS jsonb) ->> 'previous_sha256' AS named,
            coalesce(
                lag(encode(sha256(convert_to(text, 'UTF8')), 'hex')) OVER (ORDER BY certificate_number), :first
            ) AS previous
        FROM erasure_certificates
    ) AS links WHERE named IS DISTINCT FROM previous
)
"""


class CertificateStore:
    """Keeps certificates."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def next(self) -> tuple[int, str]:
        """Return the number of the next certificate and the hash of the last one; one at a time may ask."""
        await self._tx.execute("SELECT pg_advisory_xact_lock(8, 5)")
        row = await self._tx.row(
            "SELECT certificate_number, text FROM erasure_certificates ORDER BY certificate_number DESC LIMIT 1"
        )
        return (1, FIRST) if row is None else (row.certificate_number + 1, hash_of(row.text))

    async def ledger_head(self) -> dict[str, Any]:
        """Return the place and the hash of the last row of the consent ledger, which an erasure leaves as they are."""
        row = await self._tx.row("SELECT sequence, hash FROM consent_ledger ORDER BY sequence DESC LIMIT 1")
        return {"sequence": row.sequence, "sha256": row.hash.hex()} if row else {"sequence": 0, "sha256": ""}

    async def add(self, certificate: Certificate) -> None:
        """Keep a certificate."""
        await self._tx.execute(
            "INSERT INTO erasure_certificates VALUES (:number, :data_request_id, :text, :signature, :key_id)",
            number=certificate.number,
            data_request_id=certificate.data_request_id,
            text=certificate.text,
            signature=certificate.signature,
            key_id=certificate.key_id,
        )

    async def get(self, data_request_id: str) -> Certificate:
        """Return the certificate of an erasure; raises `FailedPrecondition` while there is none."""
        row = await self._tx.row("SELECT * FROM erasure_certificates WHERE data_request_id = :id", id=data_request_id)
        if row is None:
            raise FailedPrecondition("there is no certificate: only a finished erasure has one")
        return Certificate(row.certificate_number, row.data_request_id, row.text, row.signature, row.key_id)

    async def knows(self, text: str) -> bool:
        """Tell whether a certificate was given out in exactly these words, and whether the chain is whole."""
        known = await self._tx.value("SELECT EXISTS (SELECT FROM erasure_certificates WHERE text = :text)", text=text)
        return bool(known) and not await self._tx.value(_BROKEN, first=FIRST)
