# SPDX-License-Identifier: Apache-2.0
"""Encryption at rest, as an option: envelopes with AES-256-GCM.

Key-encryption keys come from settings and never touch the database. They wrap data keys, one for each day, which are in
the table `data_keys` and encrypt values. A value is bound to its column and row, so that it opens nowhere else. A
service that seals has the tables `data_keys` and `sealing_progress`.
"""

from chassis.encryption.sealing import NO_SEALER, EncryptionKeys, Sealer

__all__ = ["NO_SEALER", "EncryptionKeys", "Sealer"]
