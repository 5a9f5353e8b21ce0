# SPDX-License-Identifier: Apache-2.0
"""What clients of Segment send, as types: only what Dangol reads; unknown members are skipped unread.

Properties, traits and context stay raw JSON, so that their bytes go through untouched.
"""

from typing import Annotated, Any

from chassis.identifiers import MAX_VALUE_LENGTH
from msgspec import Meta, Raw, Struct
from msgspec.json import Decoder

MAX_MESSAGE_ID_LENGTH = 100
MAX_NAME_LENGTH = 255
"""Names become keys of tables, and an index entry of PostgreSQL holds 2,700 bytes."""

# A larger one, written out, would have up to 309 digits.
_Number = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | Annotated[float, Meta(ge=-(2.0**63), le=2.0**63)] | None
MessageId = Annotated[str, Meta(max_length=MAX_MESSAGE_ID_LENGTH)] | _Number
Id = Annotated[str, Meta(max_length=MAX_VALUE_LENGTH)] | _Number
Name = Annotated[str, Meta(max_length=MAX_NAME_LENGTH)] | _Number
"""Ids and names; raw HTTP users send numbers."""


class Batch(Struct, rename="camel", gc=False):
    """The body of `/v1/batch`."""

    batch: list[Raw]
    write_key: Any = None
    sent_at: Any = None
    context: Raw = Raw()


class Single(Struct, rename="camel", gc=False):
    """What the request itself needs of the body of `/v1/track` and the like."""

    write_key: Any = None
    sent_at: Any = None


class Incoming(Struct, rename="camel", gc=False):
    """One event. Times are `Any` because a bad one must not cost the event."""

    type: str | None = None
    message_id: MessageId = None
    user_id: Id = None
    anonymous_id: Id = None
    previous_id: Id = None
    group_id: Id = None
    event: Name = None
    name: Name = None
    category: Name = None
    timestamp: Any = None
    original_timestamp: Any = None
    sent_at: Any = None
    properties: Raw = Raw()
    traits: Raw = Raw()
    context: Raw = Raw()


class MessageIdOnly(Struct, rename="camel", gc=False):
    """What is worth knowing of an event that is not taken."""

    message_id: Any = None


class TraitsOfContext(Struct, gc=False):
    """Where RudderStack's Python client puts the traits of `identify`."""

    traits: Raw = Raw()


decode_batch = Decoder(Batch).decode
decode_single = Decoder(Single).decode
decode_incoming = Decoder(Incoming).decode
decode_message_id = Decoder(MessageIdOnly).decode
decode_members = Decoder(dict[str, Raw]).decode
decode_traits_of_context = Decoder(TraitsOfContext).decode
