# SPDX-License-Identifier: Apache-2.0
"""Ids and names as clients send them, brought to text."""

from chassis.identifiers import is_junk

Value = str | int | float | None


def text_of(value: Value) -> str:
    """Spell a number the way JavaScript does: 12.0 is `12`."""
    if type(value) is float and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)


def usable_id(value: Value) -> str:
    """Return an id without surrounding space; empty for what clients send when they mean nobody."""
    if not value:
        return ""
    text = text_of(value).strip()
    return "" if is_junk(text) else text
