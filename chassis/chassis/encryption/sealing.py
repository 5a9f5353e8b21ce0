# SPDX-License-Identifier: Apache-2.0
"""Seal and open values, with the data keys that this process holds; no I/O."""

import os
from base64 import b64decode, b64encode
from collections.abc import Collection, Iterable, Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chassis.errors import FailedPrecondition

MARK = b"\x00dv1"
"""What a sealed value begins with; no protobuf message does, because there is no field 0."""

TEXT_MARK = "sealed:v1:"
"""What a sealed text begins with; base64 follows."""

SETTING = "DANGOL_PROFILE_ENCRYPTION_KEYS"

_NONCE = 12
_ID = 4
_HEAD = len(MARK) + _ID + _NONCE


class EncryptionKeys:
    """The key-encryption keys by name; the first is the current one. Without any, nothing is sealed."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = {name: AESGCM(key) for name, key in keys.items()}

    @property
    def current(self) -> str:
        """Name of the key that wraps new data keys; empty without any."""
        return next(iter(self._keys), "")

    @property
    def names(self) -> Collection[str]:
        """Names of all keys, the current one first."""
        return self._keys.keys()

    def wrap(self, data_key: bytes, day: str) -> bytes:
        """Encrypt a data key with the current key."""
        nonce = os.urandom(_NONCE)
        return nonce + self._keys[self.current].encrypt(nonce, data_key, _bound("data_keys", day.encode()))

    def unwrap(self, name: str, wrapped: bytes, day: str) -> bytes:
        """Decrypt a data key; raises `FailedPrecondition` that names the setting when the key is missing or wrong."""
        key = self._keys.get(name)
        if key is None:
            raise FailedPrecondition(f"{SETTING} lacks the key {name}, which data at rest is encrypted with")
        try:
            return key.decrypt(wrapped[:_NONCE], wrapped[_NONCE:], _bound("data_keys", day.encode()))
        except InvalidTag as error:
            raise FailedPrecondition(f"{SETTING}: the key {name} is not the one that wrapped the data keys") from error


class Sealer:
    """Seals with the newest data key, opens with whichever one a value was sealed with."""

    def __init__(self) -> None:
        self._keys: dict[int, AESGCM] = {}
        self._newest = 0

    @property
    def is_on(self) -> bool:
        """True when values are sealed."""
        return bool(self._newest)

    def learn(self, data_key_id: int, data_key: bytes) -> None:
        """Hold one more data key; the one of the highest number seals."""
        self._keys[data_key_id] = AESGCM(data_key)
        self._newest = max(self._newest, data_key_id)

    def seal(self, column: str, row_id: bytes, value: bytes) -> bytes:
        """Seal a value of a column (`table.column`) and row; as it is while nothing is sealed."""
        if not self._newest:
            return value
        nonce = os.urandom(_NONCE)
        number = self._newest.to_bytes(_ID, "big")
        return MARK + number + nonce + self._keys[self._newest].encrypt(nonce, value, _bound(column, row_id))

    def seal_text(self, column: str, row_id: bytes, text: str) -> str:
        """Seal a text."""
        if not self._newest:
            return text
        return TEXT_MARK + b64encode(self.seal(column, row_id, text.encode())).decode()

    def open(self, column: str, row_id: bytes, value: bytes) -> bytes:
        """Open a value; one that was never sealed is as it is. Raises `FailedPrecondition` for one of another place."""
        if not value.startswith(MARK):
            return value
        nonce, sealed = value[_HEAD - _NONCE : _HEAD], value[_HEAD:]
        try:
            return self._keys[key_of(value)].decrypt(nonce, sealed, _bound(column, row_id))
        except (InvalidTag, KeyError) as error:
            raise FailedPrecondition(f"a value of {column} is not one that was sealed there") from error

    def open_text(self, column: str, row_id: bytes, text: str) -> str:
        """Open a text."""
        if not text.startswith(TEXT_MARK):
            return text
        return self.open(column, row_id, sealed_bytes(text)).decode()

    def lacks(self, values: Iterable[bytes | None]) -> set[int]:
        """Return the data keys that some values need and this process does not hold."""
        return {key_of(value) for value in values if value is not None and value.startswith(MARK)} - self._keys.keys()


def sealed_bytes(text: str) -> bytes:
    """Return the bytes in a sealed text; nothing in any other."""
    return b64decode(text[len(TEXT_MARK) :]) if text.startswith(TEXT_MARK) else b""


def key_of(value: bytes) -> int:
    """Return the number of the data key that a value was sealed with."""
    return int.from_bytes(value[len(MARK) : len(MARK) + _ID], "big")


def _bound(column: str, row_id: bytes) -> bytes:
    return column.encode() + b"\x00" + row_id


NO_SEALER = Sealer()
"""Of a service that seals nothing."""
