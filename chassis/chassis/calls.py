# SPDX-License-Identifier: Apache-2.0
"""The call in hand: who is calling, for what keeps a record of who did or read something."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from uuid import UUID

from chassis.tokens import Caller

_caller: ContextVar[Caller] = ContextVar("dangol_caller")
_customers: ContextVar[list[UUID] | None] = ContextVar("dangol_customers", default=None)


def current_caller() -> Caller:
    """Return whom the door let in; raises LookupError outside of a call."""
    return _caller.get()


@contextmanager
def calling(caller: Caller) -> Iterator[None]:
    """Let `current_caller` answer `caller` until the end of the block."""
    token = _caller.set(caller)
    try:
        yield
    finally:
        _caller.reset(token)


def tell_of(fragments: Iterable[UUID]) -> None:
    """Let the access log name the customers of whom an answer tells, where the request names none."""
    customers = _customers.get()
    if customers is not None:
        customers.extend(fragments)


@contextmanager
def telling() -> Iterator[list[UUID]]:
    """Collect what `tell_of` names until the end of the block."""
    customers: list[UUID] = []
    token = _customers.set(customers)
    try:
        yield customers
    finally:
        _customers.reset(token)
