"""The last of a command: whether all that it printed has arrived. Knows no command."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

from broker.cli.failing import ExitStatus
from broker.cli.showing import say


def settled(status: int) -> int:
    """Flushes what is printed; returns the status, which is no success where that fails."""
    lost = _lost(sys.stdout)
    if lost is not None and status == ExitStatus.DONE:
        status = ExitStatus.FAILED
        # A reader who has seen enough is told nothing. Nor is anybody, where stderr is full too.
        if not isinstance(lost, BrokenPipeError):
            with suppress(OSError):
                say(f"error: {lost.strerror}")
    _lost(sys.stderr)
    return int(status)


def _lost(stream: TextIO | None) -> OSError | None:
    """Flushes; what cannot be written is given up."""
    if stream is None:  # closed before we began
        return None
    try:
        stream.flush()
    except OSError as error:
        # The interpreter flushes once more at its end, and would make the exit status 120.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return error
    return None
