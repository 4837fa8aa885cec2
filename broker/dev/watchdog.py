"""Ends what a run left behind: run as a script of its own, which outlives the run by a moment.

The run holds the write end of this script's standard input. However the run ends, SIGKILL included,
the pipe closes: then the servers that are still alive are ended and the run's directory is removed.
A pipe and not `PR_SET_PDEATHSIG`: that is Linux only, fires when the *thread* that started the
child ends, and removes no directory.

Standard library only, because it runs without site-packages (`python -I -S`). What it does not
cover: a run killed in the microseconds between starting a server and naming it here; and its own
death by SIGKILL, after which the run still removes its directory itself unless it is killed too.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

STARTED = b"+"
ENDED = b"-"

# An immediate shutdown of PostgreSQL gives its children 5 s before it kills them
# (SIGKILL_CHILDREN_AFTER_SECS).
_PATIENCE_SECONDS = 6.0
_POLL_SECONDS = 0.02


def _read_until_the_run_is_gone(lifeline: IO[bytes]) -> set[int]:
    """Returns the servers that nobody has ended."""
    alive: set[int] = set()
    for line in lifeline:
        pid = int(line[1:])
        if line.startswith(STARTED):
            alive.add(pid)
        else:
            alive.discard(pid)
    return alive


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):  # gone, or the number is a stranger's by now
        return False
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Ended, but nobody has asked how: in a container often nobody does. Linux; else no."""
    with suppress(OSError), Path(f"/proc/{pid}/stat").open("rb") as stat:
        return stat.read().rpartition(b")")[2].split()[0] == b"Z"
    return False


def _wait_for(pids: set[int]) -> set[int]:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    remaining = set(pids)
    while remaining and time.monotonic() < deadline:
        remaining = {pid for pid in remaining if _is_alive(pid)}
        time.sleep(_POLL_SECONDS)
    return remaining


def _signal(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _end(pids: set[int]) -> None:
    # SIGQUIT is PostgreSQL's immediate shutdown, which also releases its shared memory; it ends
    # Valkey as well.
    _signal(pids, signal.SIGQUIT)
    # A stopped process (SIGSTOP, Ctrl-Z) acts on nothing but SIGKILL until it is continued.
    _signal(pids, signal.SIGCONT)
    _signal(_wait_for(pids), signal.SIGKILL)


def _remove(directory: str) -> None:
    # A server's last children may still be writing: a directory that fills while it is emptied is
    # tried again.
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while os.path.lexists(directory) and time.monotonic() < deadline:
        shutil.rmtree(directory, ignore_errors=True)
        time.sleep(_POLL_SECONDS)


def main(directory: str) -> None:
    """Waits for the end of the run, then removes what is left of it."""
    _end(_read_until_the_run_is_gone(sys.stdin.buffer))
    _remove(directory)


if __name__ == "__main__":
    main(sys.argv[1])
