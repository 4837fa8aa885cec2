"""A server that a run can stop, kill and start again under the same address, as fault tests do.

It is ready when it answers, not when time has passed. What differs between servers is behind
`Kind`.
"""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Final, Protocol

from broker.dev.child import POLL_SECONDS, Child, Program, ServerStartError
from broker.dev.rundir import RunDirectory

# A cold start from a slow disk takes seconds; half a minute is a machine that will not make it.
START_SECONDS: Final = 30.0

# A predecessor killed a moment ago: its children notice within milliseconds.
_RETRY_SECONDS: Final = 0.05


class Kind(Protocol):
    """What differs between the servers."""

    @property
    def program(self) -> Program:
        """What to start."""

    @property
    def url(self) -> str:
        """Where clients connect."""

    @property
    def endings(self) -> tuple[tuple[signal.Signals, float], ...]:
        """The signals that ask it to end, each with the seconds it is given."""

    async def answers(self) -> bool:
        """Says whether it takes requests yet. Safe to cancel and to repeat."""

    def may_start_later(self, last_words: str) -> bool:
        """Says whether a failed start is worth another try: a killed predecessor may linger."""

    def forget(self) -> None:
        """Releases what a killed server leaves outside its directory."""


class EmbeddedServer:
    """A server of the run. Use from one task at a time."""

    def __init__(self, run: RunDirectory, kind: Kind) -> None:
        """Takes note; `start` starts it."""
        self._run = run
        self._kind = kind
        self._child: Child | None = None

    def __repr__(self) -> str:
        """Name and state, for failed tests."""
        state = f"pid {self._child.pid}" if self._child else "stopped"
        return f"<{self._kind.program.name}: {state}>"

    @property
    def url(self) -> str:
        """Where clients connect; stays the same over restarts."""
        return self._kind.url

    @property
    def pid(self) -> int:
        """The process id of the running server.

        Raises:
            RuntimeError: it is not running.
        """
        if self._child is None:
            raise RuntimeError(self)
        return self._child.pid

    async def start(self) -> None:
        """Starts it and waits until it answers.

        Raises:
            ServerStartError: it ended, or does not answer within `START_SECONDS`.
            RuntimeError: it is running already.
        """
        if self._child is not None:
            raise RuntimeError(self)
        deadline = time.monotonic() + START_SECONDS
        while not await self._try_to_start(deadline):
            await asyncio.sleep(_RETRY_SECONDS)

    async def _try_to_start(self, deadline: float) -> bool:
        """Says whether it runs now; if not, it is worth trying again."""
        starting = Child(self._run, self._kind.program)
        try:
            await self._until_it_answers(starting, deadline)
            self._child = starting
        except ServerStartError as error:
            if time.monotonic() > deadline or not self._kind.may_start_later(error.last_words):
                raise
        finally:
            if self._child is None:
                starting.kill()
        return self._child is not None

    async def _until_it_answers(self, starting: Child, deadline: float) -> None:
        # By the clock: on Python 3.11 a driver's `wait_for` can swallow the one cancellation that
        # `asyncio.timeout` sends.
        while not await self._kind.answers():
            if starting.status is not None:
                raise starting.start_error(f"ended with status {starting.status}")
            if time.monotonic() > deadline:
                raise starting.start_error(f"does not answer after {START_SECONDS:g} s")
            await asyncio.sleep(POLL_SECONDS)

    async def stop(self) -> None:
        """Asks it to end and waits for it. Does nothing when it is not running."""
        if self._child is not None:
            await self._child.end(*self._kind.endings)
            self._child = None

    async def kill(self) -> None:
        """Ends it as a crash would, with SIGKILL. Does nothing when it is not running."""
        if self._child is not None:
            self._child.kill()
            self._child = None
