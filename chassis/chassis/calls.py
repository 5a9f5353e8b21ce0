# SPDX-License-Identifier: Apache-2.0
"""The call in hand: who is calling, for what keeps a record of who did or read something."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from chassis.tokens import Caller

_caller: ContextVar[Caller] = ContextVar("dangol_caller")


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
