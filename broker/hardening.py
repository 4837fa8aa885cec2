"""Keeps the memory of this process to itself: it holds the keyset and tokens in clear (law 7).

A crash of a library in C must not leave them in a core file, whose place the system chooses, and no
other process of the same user may read them. What a system does not offer is left out.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from typing import Final

_PR_SET_DUMPABLE: Final = 4
"""Of `prctl` (linux/prctl.h). Not dumpable: no core, and neither ptrace nor /proc/PID/mem."""

_NOT: Final = 0


def keep_memory_private() -> None:
    """Allows no core files from now on, to this process and to those that it starts.

    Raises:
        OSError: the system offers it and refuses. Then it is better not to serve.
    """
    # The hard limit too: nothing within the process can take it back.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The limit alone is not enough: the kernel ignores it where cores are piped to a program.
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_DUMPABLE, _NOT, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")
