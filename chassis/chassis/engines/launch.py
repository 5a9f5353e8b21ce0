# SPDX-License-Identifier: Apache-2.0
"""Become another program that ends with its parent.

Run as a script, between a supervisor and its child (`launch.py PARENT SIGNAL UID GID COMMAND...`), because
what it does must happen in the child, and code between fork and exec can deadlock in a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 8, 47, 2
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
LINUX_CAPABILITY_VERSION_3 = 0x20080522


def main(arguments: list[str]) -> None:
    """Change the account if asked, tie this process to its parent, and become the command."""
    parent, death_signal, uid, gid = (int(argument) for argument in arguments[:4])
    command = arguments[4:]
    if uid != os.geteuid():
        _become(uid, gid)
    # After the change of account, which would undo it.
    _end_with(parent, death_signal)
    os.execv(command[0], command)  # noqa: S606 - a shell would be one process too many


def _end_with(parent: int, death_signal: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent has ended already")


def _become(uid: int, gid: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if sys.platform == "linux":
        _keep_one_capability(CAP_DAC_READ_SEARCH) or _keep_one_capability(CAP_DAC_OVERRIDE)


def _keep_one_capability(capability: int) -> bool:
    """Keep the right to read in root's closed folders, so that none of them has to be opened to everybody.

    Where the system grants neither capability, the program only works if its folders can be reached.
    """
    libc = ctypes.CDLL(None)
    bit = 1 << capability
    header = (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0)
    # Effective, permitted and inheritable; the second half is for capabilities from number 32 on.
    sets = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)
    if libc.capset(header, sets) != 0:
        return False
    return bool(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) == 0)


if __name__ == "__main__":
    main(sys.argv[1:])
