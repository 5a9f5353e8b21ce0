# SPDX-License-Identifier: Apache-2.0
"""Seal and open values, with the data keys that this process holds; no I/O."""

import binascii
import os
import re
from base64 import b64decode, b64encode
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import blake2s

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chassis.errors import FailedPrecondition

MARK = b"\x00dv1"
"""What a sealed value begins with; no protobuf message does, because there is no field 0."""

TEXT_MARK = "sealed:v1:"
"""What a sealed text begins with; base64 follows."""

SETTING = "DANGOL_PROFILE_ENCRYPTION_KEYS"

_SEALED = re.compile(TEXT_MARK + "[A-Za-z0-9+/=]+")

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
        self._hash_key = b""

    @property
    def is_on(self) -> bool:
        """True when values are sealed."""
        return bool(self._newest)

    def learn(self, data_key_id: int, data_key: bytes) -> None:
        """Hold one more data key; the one of the highest number seals."""
        self._keys[data_key_id] = AESGCM(data_key)
        self._newest = max(self._newest, data_key_id)

    def learn_hash_key(self, key: bytes) -> None:
        """Hold the key of hashes: it stays the same for ever, because what is looked up by a hash must be found."""
        self._hash_key = key

    def hash(self, number: int) -> int:
        """Replace a number of 32 bits by one that says nothing without the key; as it is while nothing is sealed."""
        if not self._newest:
            return number
        data = number.to_bytes(4, "big", signed=True)
        return int.from_bytes(blake2s(data, key=self._hash_key, digest_size=4).digest(), "big", signed=True)

    def seal(self, column: str, row_id: bytes, value: bytes) -> bytes:
        """Seal a value of a column (`table.column`) and row; as it is while nothing is sealed."""
        if not self._newest:
            return value
        nonce = os.urandom(_NONCE)
        number = self._newest.to_bytes(_ID, "big")
        return MARK + number + nonce + self._keys[self._newest].encrypt(nonce, value, _bound(column, row_id))

    def seal_each(
        self, column: str, row_ids: Iterable[bytes], values: Sequence[bytes | None]
    ) -> Sequence[bytes | None]:
        """Seal the values of several rows, except those that are None; as they are while nothing is sealed."""
        if not self._newest:
            return values
        pairs = zip(row_ids, values, strict=True)
        return [None if value is None else self.seal(column, row_id, value) for row_id, value in pairs]

    def seal_text(self, column: str, row_id: bytes, text: str) -> str:
        """Seal a text."""
        if not self._newest:
            return text
        return TEXT_MARK + b64encode(self.seal(column, row_id, text.encode())).decode()

    def open(self, column: str, row_id: bytes, value: bytes) -> bytes:
        """Open a value; one that was never sealed is as it is. Raises `FailedPrecondition` for one of another place."""
        if not value.startswith(MARK):
            return value
        if len(value) < _HEAD:
            raise FailedPrecondition(f"a value of {column} is not one that was sealed there")
        nonce, sealed = value[_HEAD - _NONCE : _HEAD], value[_HEAD:]
        try:
            return self._keys[key_of(value)].decrypt(nonce, sealed, _bound(column, row_id))
        except (InvalidTag, KeyError) as error:
            raise FailedPrecondition(f"a value of {column} is not one that was sealed there") from error

    def open_text(self, column: str, row_id: bytes, text: str) -> str:
        """Open a text; what only looks as if it were sealed is as it is."""
        if not text.startswith(TEXT_MARK):
            return text
        data = sealed_bytes(text)
        try:
            return self.open(column, row_id, data).decode() if data.startswith(MARK) else text
        except FailedPrecondition:
            return text

    def seal_values(self, column: str, row_id: bytes, text: str) -> str:
        """Seal the values in a JSON object of arrays: the first element of each; the others decide about them."""
        if not self._newest:
            return text
        sealed = {
            name: [self.seal_text(column, _part(row_id, name), msgspec.json.encode(value).decode()), *rest]
            for name, (value, *rest) in msgspec.json.decode(text).items()
        }
        return msgspec.json.encode(sealed).decode()

    def open_values(self, column: str, row_id: bytes, text: str) -> str:
        """Open the values in a JSON object of arrays."""
        if TEXT_MARK not in text:
            return text
        opened = {
            name: [self._open_value(column, _part(row_id, name), value), *rest]
            for name, (value, *rest) in msgspec.json.decode(text).items()
        }
        return msgspec.json.encode(opened).decode()

    def _open_value(self, column: str, row_id: bytes, value: object) -> object:
        if not isinstance(value, str) or not value.startswith(TEXT_MARK):
            return value
        opened = self.open_text(column, row_id, value)
        return value if opened == value else msgspec.json.decode(opened)

    def lacks(self, values: Iterable[bytes | None]) -> set[int]:
        """Return the data keys that some values need and this process does not hold."""
        return {key_of(value) for value in values if value is not None and value.startswith(MARK)} - self._keys.keys()


def sealed_bytes(text: str) -> bytes:
    """Return the bytes in a sealed text; nothing in any other."""
    if not text.startswith(TEXT_MARK):
        return b""
    try:
        return b64decode(text[len(TEXT_MARK) :], validate=True)
    except binascii.Error:
        return b""


def all_sealed_bytes(text: str) -> list[bytes]:
    """Return the bytes of everything sealed inside a text."""
    return [sealed_bytes(found) for found in _SEALED.findall(text)]


def _part(row_id: bytes, name: str) -> bytes:
    return row_id + b"\x00" + name.encode()


def key_of(value: bytes) -> int:
    """Return the number of the data key that a value was sealed with."""
    return int.from_bytes(value[len(MARK) : len(MARK) + _ID], "big")


def _bound(column: str, row_id: bytes) -> bytes:
    return column.encode() + b"\x00" + row_id


NO_SEALER = Sealer()
"""Of a service that seals nothing."""
