"""The sandbox as one thing: its server, its faults, its record, its clock.

What in-process tests hold in their hands, and what the HTTP endpoints and the control act upon.
Decides nothing about OAuth.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from broker.sandbox.authorization_server import AuthorizationServer
from broker.sandbox.faults import Faults
from broker.sandbox.mint import Randomness
from broker.sandbox.record import Record
from broker.sandbox.settings import Settings
from broker.sandbox.waiting import Progress, WaitingRoom

Clock = Callable[[], datetime]

# How long a test waits for an event before it says that it will not come: far longer than a loaded
# machine needs, shorter than the limit of a test.
_PATIENCE_SECONDS = 30.0


def utc_now() -> datetime:
    """Return the time of day."""
    return datetime.now(UTC)


class Sandbox:
    """A Pleo of one's own."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        clock: Clock = utc_now,
        randomness: Randomness = secrets.token_urlsafe,
    ) -> None:
        """Start behaving, with the world of `settings`."""
        self.url = ""
        """Where it is served, without a slash at the end; set by `sandbox_server`."""
        self._initial = settings or Settings()
        self._clock = clock
        self._randomness = randomness
        self._ahead = timedelta()
        self.server = AuthorizationServer(self._initial, randomness=randomness)
        self.record = Record()
        self.faults = Faults()
        self.room = WaitingRoom()

    @property
    def authorize_url(self) -> str:
        """Where the browser goes."""
        return f"{self.url}/oauth/authorize"

    @property
    def token_url(self) -> str:
        """Where tokens come from."""
        return f"{self.url}/oauth/token"

    def now(self) -> datetime:
        """Return the sandbox's own time."""
        return self._clock() + self._ahead

    def advance(self, by: timedelta) -> None:
        """Let time pass for the sandbox alone: tokens expire without anybody waiting."""
        self._ahead += by

    async def until(
        self, *, presentations: int = 0, held: int = 0, hung_up: int = 0, finished: int = 0
    ) -> None:
        """Wait until so much has happened; see `Progress`.

        Raises:
            TimeoutError: it did not, for half a minute.
        """
        goal = Progress(presentations=presentations, held=held, hung_up=hung_up, finished=finished)
        if not await self.room.reached(goal, timeout_seconds=_PATIENCE_SECONDS):
            raise TimeoutError(f"waited for {goal}, there is {self.room.progress}")

    def release(self) -> int:
        """Let all requests go on that are held or hanging; how many there were."""
        return self.room.release()

    def reset(self) -> None:
        """Begin again: first settings, no grants, no record, no faults, the time of day."""
        self.room.restart()
        self.server = AuthorizationServer(self._initial, randomness=self._randomness)
        self.record = Record()
        self.faults = Faults()
        self._ahead = timedelta()
