# SPDX-License-Identifier: Apache-2.0
"""Identifiers of erased customers, known by hash only."""

from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b

from svc_profile.domain.events import FragmentKey

_PURPOSE = b"dangol.suppress"


@dataclass(frozen=True)
class Suppression:
    """An identifier that is not collected any more."""

    suppression_id: bytes
    namespace: str
    data_request_id: str
    created_time: datetime


def suppression_id(fragment: FragmentKey) -> bytes:
    """Hash an identifier for the list of suppressions.

    A fragment's id is the hash of the identifier under the platform's secret key, so this is one too; being
    personalised (BLAKE2, RFC 7693), it equals no fragment id that stands elsewhere, such as in an old backup.
    """
    return blake2b(fragment, digest_size=16, person=_PURPOSE).digest()
