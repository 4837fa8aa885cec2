"""The one directory that a run owns: where it may lie, and that nothing of it stays.

Decides the place: below `$TMPDIR` where a Unix socket's path still fits and the servers can get at
it, else the system's own. Whoever leaves `run_directory()`, in whatever way, leaves neither
directory nor server (see `watchdog`). The directories of other runs are none of its business, stale
or not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from broker.dev import watchdog
from broker.dev.wheels import unprivileged_account

_PREFIX: Final = "broker-"

# sockaddr_un.sun_path holds 104 bytes on macOS (108 on Linux), the closing NUL included.
_SOCKET_PATH_LIMIT: Final = 103

# What follows the place itself: mkdtemp's 8 letters, a server's directory of at most 16,
# PostgreSQL's socket name.
_LONGEST_SOCKET: Final = f"/{_PREFIX}xxxxxxxx/{'s' * 16}/.s.PGSQL.65535"

# The watchdog's own patience, twice: for servers to end and for the directory to go.
_WATCHDOG_SECONDS: Final = 15.0


class NoRunDirectoryError(RuntimeError):
    """No directory for temporary files can hold the servers of a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDirectory:
    """A directory that vanishes with the run, and the list of servers that must not outlive it."""

    path: Path
    lifeline: IO[bytes]

    def started(self, pid: int) -> None:
        """Names a server that must not outlive the run.

        Raises:
            OSError: nobody is listening any more, so that nothing would end it.
        """
        self.lifeline.write(b"%b%d\n" % (watchdog.STARTED, pid))

    def ended(self, pid: int) -> None:
        """Takes a server off the list, since its process id may now become somebody else's."""
        with suppress(
            OSError
        ):  # nobody is listening: then nobody can end a stranger by mistake either
            self.lifeline.write(b"%b%d\n" % (watchdog.ENDED, pid))


def _fits(place: Path) -> bool:
    return len(os.fsencode(place)) + len(_LONGEST_SOCKET) <= _SOCKET_PATH_LIMIT


def _is_open_to_others(place: Path) -> bool:
    """Whether other users can run programs in it, as root's PostgreSQL has to."""
    steps = [place.resolve(), *place.resolve().parents]
    no_execution = getattr(os, "ST_NOEXEC", 0)  # absent on macOS
    return all(step.stat().st_mode & 0o001 for step in steps) and not (
        os.statvfs(place).f_flag & no_execution
    )


def _is_fit(place: Path) -> bool:
    if not (_fits(place) and os.access(place, os.W_OK | os.X_OK)):
        return False
    return unprivileged_account() is None or _is_open_to_others(place)


def _place() -> Path:
    places = [Path(tempfile.gettempdir()).absolute(), Path("/tmp"), Path("/var/tmp")]  # noqa: S108 - mkdtemp's
    for place in places:
        if _is_fit(place):
            return place
    tried = ", ".join(map(str, dict.fromkeys(places)))
    message = (
        f"none of {tried} can hold a run: its path must be shorter than "
        f"{_SOCKET_PATH_LIMIT - len(_LONGEST_SOCKET)} bytes, writable, and for root also "
        "open to other users and executable; set TMPDIR to a directory that is"
    )
    raise NoRunDirectoryError(message)


def _start_watchdog(path: Path) -> subprocess.Popen[bytes]:
    # Its own session: Ctrl-C in a terminal reaches the run alone, which ends its servers in order.
    # No output: an inherited stdout would keep `make test | tee` waiting.
    return subprocess.Popen(
        [sys.executable, "-I", "-S", watchdog.__file__, str(path)],
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        start_new_session=True,
    )


@contextmanager
def run_directory() -> Iterator[RunDirectory]:
    """Opens a new directory for one run, and removes it at the end with whatever still runs there.

    Raises:
        NoRunDirectoryError: no directory for temporary files is fit.
    """
    path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_place()))
    guardian = _start_watchdog(path)
    if guardian.stdin is None:  # for the type checker: PIPE was asked for
        raise RuntimeError(path)
    try:
        yield RunDirectory(path=path, lifeline=guardian.stdin)
    finally:
        # Both exits go one way: the end of the lifeline, whether closed here or by the kernel.
        guardian.stdin.close()
        guardian.wait(_WATCHDOG_SECONDS)
