# SPDX-License-Identifier: Apache-2.0
"""Hide personal data in answers from callers who may not see it.

A field with the option `pii` is masked for a caller without the scope `<service>.pii`. What a message type needs is
compiled once; a type that holds nothing personal costs nothing.
"""

import re
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any, TypeVar

import phonenumbers
from dangol.options.v1 import options_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value

MASK = "***"

PERSONAL_NAMES = frozenset(
    {
        "address", "addresses", "birthdate", "birthday", "birthyear", "contact", "dateofbirth", "displayname",
        "email", "emailaddress", "familyname", "firstname", "fullname", "givenname", "homephone", "ip", "lastname",
        "middlename", "mobile", "mobilephone", "name", "nickname", "phone", "phonenumber", "photo", "avatar",
        "postalcode", "recipient", "recipientname", "shippingaddress", "billingaddress", "ssn", "street",
        "surname", "tel", "telephone", "userip", "username", "useragent", "zip", "zipcode",
        "이름", "성명", "이메일", "전화", "전화번호", "휴대폰", "주소", "생년월일", "생일", "우편번호", "닉네임",
    }
)  # fmt: skip
"""Names of traits and properties that are personal, in lower case and without `_`, `-` and spaces."""

_NAMES_OF_PEOPLE = frozenset(
    {
        "displayname", "familyname", "firstname", "fullname", "givenname", "lastname", "middlename", "name", "nickname",
        "recipient", "recipientname", "surname", "username", "이름", "성명", "닉네임",
    }
)  # fmt: skip
THINGS_HAVE_NAMES = frozenset({"name"})
"""Personal in a customer's traits, not in what an event tells: there it is the name of a product."""
_CALLS_WITH_TRAITS = ("identify", "group")
"""Types of event that tell traits, even where these stand among properties."""
_PSEUDONYMS = frozenset({"user_id", "anonymous_id", "order_id"})
"""Kinds of identifier that say nothing to an outsider, unless their value is an address or a number in itself."""

_EMAIL = re.compile(r"[^@\s]+@[\w.-]+\.[\w-]+")
# A date begins with its year, a number of a telephone with `+` or `0`.
_PHONE = re.compile(r"[+0][0-9 ().-]{8,20}")
# Inside other text an address ends where a part of a URL does. A number stands apart from what is an id or a time.
_EMAIL_WITHIN = re.compile(r"[^@\s\"<>()\[\],;:/?&=#]+(?:@|%40)[\w.-]+\.[\w-]+", re.IGNORECASE)
_PHONE_WITHIN = re.compile(r"(?<![0-9A-Za-z_.+-])(?<![0-9]:)[+0][0-9 ().-]{7,19}[0-9](?![0-9A-Za-z_])")
_NAMES_OF_PHONES = re.compile(r"phone|mobile|tel|전화|휴대")
_LABEL = re.compile(r"[^\W\d_][\w-]*")
_SEPARATORS = re.compile(r"[_\-\s]")
_REFERENCE = re.compile(r"([a-z][a-z0-9_]*):(.+)", re.DOTALL)
_SHOWN_DIGITS = 4

M = TypeVar("M", bound=Message)
Mask = Callable[[Message, Collection[str]], None]


def mask(message: M, personal: Collection[str] = ()) -> M:
    """Return a message without personal data; the same object when its type holds none.

    `personal` names further traits that are personal, spelt as `plain` spells them.
    """
    run = _mask_of(message.DESCRIPTOR)
    if run is None:
        return message
    masked = type(message)()
    masked.CopyFrom(message)
    run(masked, personal)
    return masked


def holds_personal_data(descriptor: Descriptor) -> bool:
    """Tell whether a message type can hold anything that is masked."""
    return _mask_of(descriptor) is not None


def plain(name: str) -> str:
    """Spell the name of a trait in the one way in which names are compared."""
    return _SEPARATORS.sub("", name).casefold()


def mask_email(value: str) -> str:
    """`kim@example.co.kr` is `k***@e***.kr`."""
    local, _, domain = value.rpartition("@")
    labels = domain.rsplit(".", 1)
    end = "." + labels[1] if len(labels) == 2 and _LABEL.fullmatch(labels[1]) else ""
    return f"{local[:1]}{MASK}@{domain[:1]}{MASK}{end}"


def mask_phone(value: str) -> str:
    """`+821012345678` is `+82******5678`: the country and the last four digits stay."""
    digits = re.sub(r"\D", "", value)
    if len(digits) < 2 * _SHOWN_DIGITS:
        return MASK
    country = _country(value)
    hidden = len(digits) - len(country) - _SHOWN_DIGITS
    return f"{'+' + country if country else ''}{'*' * hidden}{digits[-_SHOWN_DIGITS:]}"


def _country(value: str) -> str:
    if not value.startswith("+"):
        return ""
    try:
        return str(phonenumbers.parse(value).country_code)
    except phonenumbers.NumberParseException:
        return ""


def mask_name(value: str) -> str:
    """`김단골` is `김**`, whatever its length."""
    return f"{value[:1]}**"


def mask_identifier(namespace: str, value: str) -> str:
    """Hide an identifier by its kind; an id that means nothing outside the company stays."""
    if namespace == "email":
        return mask_email(value)
    if namespace == "phone":
        return mask_phone(value)
    if namespace == "name":
        return mask_name(value)
    return mask_within(value) if namespace in _PSEUDONYMS else mask_by_form(value)


def mask_reference(value: str) -> str:
    """Hide the value in a profile reference; `prf_…` stays."""
    parts = _REFERENCE.fullmatch(value)
    return f"{parts[1]}:{mask_identifier(parts[1], parts[2])}" if parts else value


def mask_by_form(value: str) -> str:
    """Hide a text: of an address or a number the beginning or the end stays, of any other nothing."""
    if _EMAIL.fullmatch(value):
        return mask_email(value)
    return mask_phone(value) if _PHONE.fullmatch(value) else MASK


def mask_within(text: str) -> str:
    """Hide the addresses and numbers that stand in a text; the rest stays."""
    if _EMAIL.fullmatch(text) or _PHONE.fullmatch(text):
        return mask_by_form(text)
    text = _EMAIL_WITHIN.sub(lambda found: mask_email(found[0].replace("%40", "@")), text)
    return _PHONE_WITHIN.sub(lambda found: mask_phone(found[0]), text)


def _mask_trait(name: str, value: str) -> str:
    if _EMAIL.fullmatch(value):
        return mask_email(value)
    if _NAMES_OF_PHONES.search(name):
        return mask_phone(value)
    return mask_name(value) if name in _NAMES_OF_PEOPLE else MASK


@cache
def _mask_of(descriptor: Descriptor) -> Mask | None:
    """Compile what one message type needs, once; None when it holds nothing personal."""
    if not _reaches_personal(descriptor, frozenset()):
        return None
    steps = [step for field in descriptor.fields if (step := _step(field)) is not None]

    def run(message: Message, personal: Collection[str]) -> None:
        for step in steps:
            step(message, personal)

    return run


def _is_personal(field: FieldDescriptor) -> bool:
    return bool(field.GetOptions().Extensions[options_pb2.pii])


def _reaches_personal(descriptor: Descriptor, above: frozenset[str]) -> bool:
    """Follow the fields of a type, which may contain itself."""
    if descriptor.full_name in above or descriptor.full_name.startswith("google.protobuf."):
        return False
    above |= {descriptor.full_name}
    return any(
        _is_personal(field) or (field.message_type is not None and _reaches_personal(field.message_type, above))
        for field in descriptor.fields
    )


def _step(field: FieldDescriptor) -> Mask | None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return _map_step(field)
    if not _is_personal(field):
        return _nested_step(field)
    if field.message_type is not None and field.message_type.full_name == Struct.DESCRIPTOR.full_name:
        return _struct_step(field)
    if field.message_type is not None and field.message_type.full_name == Value.DESCRIPTOR.full_name:
        return _value_step(field)
    if field.type == FieldDescriptor.TYPE_STRING:
        return _text_step(field)
    return _clear_step(field)


def _clear_step(field: FieldDescriptor) -> Mask:
    def step(message: Message, _personal: Collection[str]) -> None:
        message.ClearField(field.name)

    return step


def _nested_step(field: FieldDescriptor) -> Mask | None:
    inner = field.message_type
    if inner is None or not _reaches_personal(inner, frozenset()):
        return None

    def step(message: Message, personal: Collection[str]) -> None:
        # Looked up when it is used, because message types may contain themselves.
        run = _mask_of(inner)
        if run is None:
            return
        if field.is_repeated:
            for element in getattr(message, field.name):
                run(element, personal)
        elif message.HasField(field.name):
            run(getattr(message, field.name), personal)

    return step


def _map_step(field: FieldDescriptor) -> Mask | None:
    values = field.message_type.fields_by_name["value"] if field.message_type else None
    if values is None:
        return None
    if _is_personal(field):
        return _text_map_step(field) if values.type == FieldDescriptor.TYPE_STRING else _clear_step(field)
    inner = values.message_type
    if inner is None or not _reaches_personal(inner, frozenset()):
        return None

    def step(message: Message, personal: Collection[str]) -> None:
        run = _mask_of(inner)
        for element in getattr(message, field.name).values():
            if run is not None:
                run(element, personal)

    return step


def _text_map_step(field: FieldDescriptor) -> Mask:
    def step(message: Message, personal: Collection[str]) -> None:
        values = getattr(message, field.name)
        for name in list(values):
            values[name] = _mask_trait(plain(name), values[name])

    return step


def _text_step(field: FieldDescriptor) -> Mask:
    """Fit the way of masking to the field: an identifier by its namespace, a reference, a name, any other text."""
    owner = field.containing_type
    if owner is not None and field.name == "value" and "namespace" in owner.fields_by_name:
        return _identifier_step
    hide = _HIDE.get(field.name, mask_by_form)

    def step(message: Message, _personal: Collection[str]) -> None:
        value = getattr(message, field.name)
        if field.is_repeated:
            value[:] = [hide(element) for element in value]
        elif value:
            setattr(message, field.name, hide(value))

    return step


def _identifier_step(message: Any, _personal: Collection[str]) -> None:
    if message.value:
        message.value = mask_identifier(message.namespace, message.value)


_HIDE: Mapping[str, Callable[[str], str]] = {
    "email": mask_email,
    "phone": mask_phone,
    "name": mask_name,
    "display_name": mask_name,
    "profile": mask_reference,
}


def _struct_step(field: FieldDescriptor) -> Mask:
    tells_traits = field.name.endswith("traits")

    def step(message: Message, personal: Collection[str]) -> None:
        names = PERSONAL_NAMES.union(personal)
        if not tells_traits and getattr(message, "type", "") not in _CALLS_WITH_TRAITS:
            names -= THINGS_HAVE_NAMES
        if field.is_repeated:
            for element in getattr(message, field.name):
                _mask_struct(element, names, None)
        elif message.HasField(field.name):
            _mask_struct(getattr(message, field.name), names, None)

    return step


def _value_step(field: FieldDescriptor) -> Mask:
    """A single value is judged by the name of the trait that stands beside it."""
    owner = field.containing_type
    beside = [name for name in ("trait", "trait_name", "name") if owner is not None and name in owner.fields_by_name]
    if not beside or field.is_repeated:
        return _clear_step(field)

    def step(message: Message, personal: Collection[str]) -> None:
        if message.HasField(field.name):
            spelt, names = plain(getattr(message, beside[0])), PERSONAL_NAMES.union(personal)
            _mask_value(getattr(message, field.name), names, spelt if spelt in names else None)

    return step


def _mask_struct(struct: Struct, names: Collection[str], above: str | None) -> None:
    """Hide all that stands below a personal name, and addresses and numbers anywhere; `above` is that name."""
    for name, value in struct.fields.items():
        spelt = plain(name)
        _mask_value(value, names, spelt if spelt in names else above)


def _mask_value(value: Value, names: Collection[str], above: str | None) -> None:
    kind = value.WhichOneof("kind")
    if kind == "struct_value" and above is not None and above not in PERSONAL_NAMES:
        # What a company calls personal may be a map whose keys are names of people.
        value.string_value = MASK
    elif kind == "struct_value":
        _mask_struct(value.struct_value, names, above)
    elif kind == "list_value":
        for element in value.list_value.values:
            _mask_value(element, names, above)
    elif kind == "string_value":
        text = value.string_value
        value.string_value = mask_within(text) if above is None else _mask_trait(above, text)
    elif kind == "number_value" and above is not None:
        value.string_value = MASK
