"""Where requests wait, and where tests wait for requests: order comes from events, not from sleep.

Requests wait here until they are released, until a delay is over, or until their client has gone;
all of it ends when the room closes, so that a sandbox stops at once whatever it was holding. Also
counts what has happened, for those who wait until it has happened often enough.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Literal

from broker.sandbox.wire import Wire

Release = Literal["answer", "reset"]
"""What a waiting request does next: goes on as if nothing had been, or ends its connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What has happened so far. `held` goes up and down, the rest only grows."""

    presentations: int = 0
    """Refresh tokens and codes that arrived at the token endpoint."""
    held: int = 0
    """Requests to any endpoint that wait for a release at this moment."""
    hung_up: int = 0
    """Presentations whose client went before it was answered."""
    finished: int = 0
    """Presentations that were answered, or ended otherwise."""

    def has_reached(self, goal: Progress) -> bool:
        """Tell whether every count is at least the goal's."""
        return (
            self.presentations >= goal.presentations
            and self.held >= goal.held
            and self.hung_up >= goal.hung_up
            and self.finished >= goal.finished
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One request that waits for a release."""

    number: int
    company: str | None
    why: str
    release: asyncio.Future[Release]

    def let_go(self, then: Release) -> None:
        """Release it, unless somebody was faster."""
        if not self.release.done():
            self.release.set_result(then)


class WaitingRoom:
    """The requests that wait, and what has happened."""

    def __init__(self) -> None:
        """Start open and empty."""
        self.progress = Progress()
        self.held: dict[int, Held] = {}
        self._numbers = 0
        self._changed = asyncio.Event()
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Let everybody go, and nobody wait again."""
        self._closing.set()
        self.release(then="reset")
        self._announce()

    def restart(self) -> None:
        """Let everybody go, and count from nothing."""
        self.release(then="reset")
        self.progress = Progress(held=self.progress.held)
        self._announce()

    def arrived(self) -> None:
        """Count a presentation."""
        progress = self.progress
        self._move(replace(progress, presentations=progress.presentations + 1))

    def hung_up(self) -> None:
        """Count a client that went."""
        self._move(replace(self.progress, hung_up=self.progress.hung_up + 1))

    def finished(self) -> None:
        """Count a presentation that is over."""
        self._move(replace(self.progress, finished=self.progress.finished + 1))

    def release(self, number: int | None = None, *, then: Release = "answer") -> int:
        """Let one request go on, or all of them; how many there were."""
        chosen = [held for held in self.held.values() if number in (None, held.number)]
        for held in chosen:
            held.let_go(then)
            self._leave(held)
        return len(chosen)

    async def hold(self, *, company: str | None, why: str) -> Release:
        """Wait for a release. A client that goes changes nothing: the server has the request."""
        return await self._wait(self._enter(company, why))

    async def hang(self, wire: Wire, *, company: str | None, why: str) -> Release:
        """Wait for a release, or for the client to give up."""
        held = self._enter(company, why)
        wire.watch(lambda: held.let_go("reset"))
        return await self._wait(held)

    async def pause(self, seconds: float) -> Release:
        """Wait for a time."""
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return "answer"
        return "reset"

    async def reached(self, goal: Progress, *, timeout_seconds: float) -> bool:
        """Wait for so much to have happened; whether it has."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while not self.progress.has_reached(goal) and not self._closing.is_set():
                    await self._changed.wait()
        except TimeoutError:
            return False
        return self.progress.has_reached(goal)

    def _enter(self, company: str | None, why: str) -> Held:
        self._numbers += 1
        release = asyncio.get_running_loop().create_future()
        held = Held(number=self._numbers, company=company, why=why, release=release)
        if self._closing.is_set():
            held.let_go("reset")
            return held
        self.held[held.number] = held
        self._move(replace(self.progress, held=len(self.held)))
        return held

    async def _wait(self, held: Held) -> Release:
        try:
            return await held.release
        finally:
            self._leave(held)

    def _leave(self, held: Held) -> None:
        self.held.pop(held.number, None)
        self._move(replace(self.progress, held=len(self.held)))

    def _move(self, progress: Progress) -> None:
        self.progress = progress
        self._announce()

    def _announce(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
