"""Where lines leave the process. A thread writes them, so that nobody ever waits for their reader.

A log collector that hangs leaves a pipe full, and whoever writes into that waits for as long: on
the event loop it would be the end of every call. So:

1. Whoever has a line hands it over, and goes on. Lines leave in the order in which they came.
2. So many wait at most. What comes beyond, or cannot be written, is lost, counted, and told with
   the next line that somebody has.
3. At the end what waits gets its time, and no more: nobody's reader holds up a shutdown.
4. No lock is held, and no buffer of the interpreter's in use, while the reader is waited for: at
   its end the interpreter wants them.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from dataclasses import dataclass
from typing import Final, TextIO

MOST_LINES: Final = 10_000
"""Some megabytes; what a busy broker says within minutes at its usual level."""

PATIENCE_SECONDS: Final = 2.0
"""At the end. A reader that is well takes all of it in some milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    encoded: bytes
    telling: int


class Outlet:
    """Writes lines to a file descriptor, which stays open."""

    def __init__(self, descriptor: int, *, most_lines: int = MOST_LINES) -> None:
        """Starts the thread; `close` ends it."""
        self._descriptor = descriptor
        self._most_lines = most_lines
        self._lines: deque[_Line] = deque()
        self._untold = 0
        self._lost = 0
        self._is_closing = False
        self._turn = threading.Condition()
        # A daemon: where its reader hangs, the process ends without it.
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """How many lines were lost since the start."""
        return self._lost

    def take_untold(self) -> int:
        """Returns how many lines were lost that no line has told of; the next one must."""
        with self._turn:
            untold, self._untold = self._untold, 0
        return untold

    def write(self, line: str, *, telling: int = 0) -> None:
        """Takes a line, which tells of so many that were lost. Never raises, never waits."""
        taken = _Line(encoded=f"{line}\n".encode(errors="backslashreplace"), telling=telling)
        with self._turn:
            if self._is_closing or len(self._lines) >= self._most_lines:
                self._lose(taken)
                return
            self._lines.append(taken)
            self._turn.notify()

    def close(self, *, patience: float = PATIENCE_SECONDS) -> None:
        """Waits until all is written, for so many seconds at most."""
        with self._turn:
            self._is_closing = True
            self._turn.notify()
        self._thread.join(patience)

    def _lose(self, line: _Line) -> None:
        self._lost += 1
        self._untold += 1 + line.telling

    def _run(self) -> None:
        while (line := self._next()) is not None:
            try:
                _write_all(self._descriptor, line.encoded)
            except OSError:  # nobody reads any more, or the disk is full
                with self._turn:
                    self._lose(line)

    def _next(self) -> _Line | None:
        with self._turn:
            self._turn.wait_for(lambda: self._lines or self._is_closing)
            return self._lines.popleft() if self._lines else None


def _write_all(descriptor: int, encoded: bytes) -> None:
    left = memoryview(encoded)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:  # whoever shares it with us made it so
            _wait_for_room(descriptor)


def _wait_for_room(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()


class Direct:
    """Writes lines to a stream at once: for a stream that no reader holds up, as one in memory."""

    def __init__(self, stream: TextIO) -> None:
        """`stream` stays open."""
        self._stream = stream
        self._untold = 0
        self.lost = 0
        """How many lines were lost since the start."""

    def take_untold(self) -> int:
        """As `Outlet` has it."""
        untold, self._untold = self._untold, 0
        return untold

    def write(self, line: str, *, telling: int = 0) -> None:
        """As `Outlet` has it."""
        try:
            self._stream.write(f"{line}\n")
            self._stream.flush()
        except (OSError, ValueError):  # the reader is gone, or the stream closed
            self.lost += 1
            self._untold += 1 + telling
