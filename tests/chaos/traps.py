"""Strikes a process with a signal when its log says that it is at a certain point.

A thread reads the log as it grows and sends the signal at once: the test's event loop, which also
serves the sandbox, would come too late for most points.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chaos.cases import Place
from support.replica import Replica

_LOOK_SECONDS: Final = 0.001
"""Between looks at the log: no longer than what lies between two events, and no more often than a
dozen threads can beside the sandbox.
"""

_PATIENCE_SECONDS: Final = 15.0
"""For the event: it comes within a second, or never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trap:
    """When to strike, and with what."""

    event: Place | None
    """None: after `delay_seconds` alone."""

    tenant: str
    delay_seconds: float = 0.0
    signal: signal.Signals = signal.SIGKILL


class SetTrap:
    """A trap that is set from now on."""

    def __init__(self, trap: Trap, replica: Replica) -> None:
        """Reads what the log has from here on."""
        self._trap = trap
        self._pid = replica.pid
        self._log = replica.log
        self._begin = replica.log.stat().st_size
        self._thread = threading.Thread(target=self._wait_and_strike, name="trap")
        self._thread.start()

    async def struck(self) -> None:
        """Waits until the signal is sent."""
        await asyncio.to_thread(self._thread.join)

    def _wait_and_strike(self) -> None:
        if self._trap.event is not None:
            _await_line(self._log, self._begin, _marks(self._trap))
        time.sleep(self._trap.delay_seconds)
        os.kill(self._pid, self._trap.signal)


def _marks(trap: Trap) -> tuple[bytes, bytes]:
    return f'"event": "{trap.event}"'.encode(), f'"{trap.tenant}"'.encode()


def _await_line(path: Path, begin: int, marks: tuple[bytes, ...]) -> None:
    give_up_at = time.monotonic() + _PATIENCE_SECONDS
    with path.open("rb") as log:
        log.seek(begin)
        rest = b""
        while time.monotonic() < give_up_at:
            *lines, rest = (rest + log.read()).split(b"\n")
            if any(all(mark in line for mark in marks) for line in lines):
                return
            time.sleep(_LOOK_SECONDS)
