# SPDX-License-Identifier: Apache-2.0
"""Certificates of erasure: canonical text, signed, each naming the one before it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from svc_profile.domain.data_requests import Answer, DataRequest

FIRST = "0" * 64
"""What the first certificate names instead of an earlier one."""

SHARED = "other customers use them too, so they are not suppressed; what this one did under them is removed"


@dataclass(frozen=True)
class Certificate:
    """The signed account of one erasure."""

    number: int
    data_request_id: str
    text: str
    signature: bytes
    key_id: str


class Signer:
    """Signs with Ed25519 (RFC 8032)."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.key_id = key_id_of(self._key.public_key())

    @property
    def public_key_pem(self) -> str:
        """The public key, for anybody who wants to verify."""
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def sign(self, text: str) -> bytes:
        """Sign the bytes of a text."""
        return self._key.sign(text.encode())

    def fits(self, text: str, signature: bytes) -> bool:
        """Tell whether a signature is one of this key over the text."""
        try:
            self._key.public_key().verify(signature, text.encode())
        except InvalidSignature:
            return False
        return True


def key_id_of(key: Ed25519PublicKey) -> str:
    """Name a public key: the beginning of the hash of its 32 bytes."""
    return sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def hash_of(text: str) -> str:
    """Hash a certificate for the next one to name."""
    return sha256(text.encode()).hexdigest()


def canonical(account: Mapping[str, Any]) -> str:
    """Write JSON in its one spelling: keys sorted, no space, UTF-8 unescaped."""
    return json.dumps(account, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def account_of(
    request: DataRequest,
    answers: Sequence[Answer],
    *,
    number: int,
    previous: str,
    suppressed: int,
    done_time: str,
    ledger_head: Mapping[str, Any],
) -> dict[str, Any]:
    """Tell an erasure: what each service removed and kept, what the last probe found; who it was by hash only."""
    removed: dict[str, dict[str, int]] = {}
    kept = []
    for answer in answers:
        if answer.asked not in ("erase", "probe"):
            continue
        counts = removed.setdefault(answer.service, {})
        for what, count in answer.answer.get("removed", {}).items():
            counts[what] = counts.get(what, 0) + count
        if answer.asked == "erase" and answer.round == request.round:
            kept += [{"service": answer.service, **each} for each in answer.answer.get("kept", ())]
    if request.subject.shared:
        kept.append({"service": "profile", "what": "identifiers", "count": len(request.subject.shared), "why": SHARED})
    probes = [answer for answer in answers if answer.asked == "probe" and answer.round == request.round]
    return {
        "certificate_number": number,
        "consent_ledger": dict(ledger_head),
        "data_request_id": request.data_request_id,
        "done_time": done_time,
        "filed_time": request.draft.filed_time.isoformat(),
        "kept": kept,
        "previous_sha256": previous,
        "probe": {
            "leftovers": [
                {"service": answer.service, "what": what, "count": count}
                for answer in probes
                for what, count in answer.answer.get("leftovers", {}).items()
            ],
            "searched_columns": {answer.service: answer.answer.get("searched_columns", 0) for answer in probes},
        },
        "regime": request.draft.regime.name,
        "removed": removed,
        "requester": request.draft.requester.name,
        "rounds": request.round,
        "subject_hash": request.subject.hash,
        "suppressed_identifiers": suppressed,
        "version": 1,
    }
