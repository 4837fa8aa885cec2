"""What the status page shows, as values, and who collects them. No tenant, caller or grant.

PostgreSQL is asked in the background and the page is answered from memory, so that looking at it
costs nothing, and works while PostgreSQL does not. Each part has its age.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Generic, TypeVar

from broker import __version__
from broker.domain.breaker import Breaker
from broker.domain.fleet_report import AttemptHour, FleetTally
from broker.domain.guard import Guard
from broker.ops.health import Health, HealthSnapshot
from broker.service.fleet import Fleet

T = TypeVar("T")

COLLECT_SECONDS: Final = 15.0
"""Between looks at PostgreSQL: quick enough for whoever watches an incident."""

TALLY_REST: Final = 100
"""Times as long as the last tally took, until the next: it reads all grants, a million in 0.6 s
(measured, with two processors), and so takes a replica's share of PostgreSQL of one in a hundred at
most, however many they are. Up to 250,000 grants it is counted at each look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aged(Generic[T]):
    """Something that was found out some time ago."""

    found: T
    age: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusView:
    """Everything on the page."""

    home: str
    environment: str
    version: str
    replica: str
    now: datetime
    """By this machine's clock, only to be read."""

    health: HealthSnapshot
    breaker: Breaker | None
    guard: Guard
    tally: Aged[FleetTally] | None
    """None: PostgreSQL has not told yet."""

    hour: Aged[AttemptHour] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found(Generic[T]):
    found: T
    at: float
    """On the event loop's clock."""

    took: float
    """Seconds until it was told."""

    def aged(self) -> Aged[T]:
        age = asyncio.get_running_loop().time() - self.at
        return Aged(found=self.found, age=timedelta(seconds=age))


class Overview:
    """Collects what the page shows. All of it is for the event loop's thread."""

    def __init__(
        self,
        tally: Callable[[], Awaitable[FleetTally]],
        hour: Callable[[], Awaitable[AttemptHour]],
    ) -> None:
        """Knows nothing before the first turn."""
        self._ask_tally = tally
        self._ask_hour = hour
        self._tally: _Found[FleetTally] | None = None
        self._hour: _Found[AttemptHour] | None = None

    async def turn(self) -> None:
        """Asks once.

        Raises:
            StoreUnavailable: what was known stays, and grows older.
        """
        if self._is_tally_due():
            self._tally = await _found(self._ask_tally)
        self._hour = await _found(self._ask_hour)

    def _is_tally_due(self) -> bool:
        if self._tally is None:
            return True
        age = asyncio.get_running_loop().time() - self._tally.at
        return age >= TALLY_REST * self._tally.took

    @property
    def tally(self) -> Aged[FleetTally] | None:
        """The counts, as they were last."""
        return self._tally.aged() if self._tally else None

    @property
    def hour(self) -> Aged[AttemptHour] | None:
        """The attempts, as they were last."""
        return self._hour.aged() if self._hour else None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusSource:
    """Puts the view together."""

    home: str
    environment: str
    health: Health
    fleet: Fleet
    overview: Overview

    def view(self) -> StatusView:
        """Returns how it is now. No I/O; for the event loop's thread."""
        return StatusView(
            home=self.home,
            environment=self.environment,
            version=__version__,
            replica=self.fleet.replica,
            now=datetime.now(UTC),
            health=self.health.snapshot(),
            breaker=self.fleet.breaker,
            guard=self.fleet.guard,
            tally=self.overview.tally,
            hour=self.overview.hour,
        )


async def _found(ask: Callable[[], Awaitable[T]]) -> _Found[T]:
    loop = asyncio.get_running_loop()
    asked_at = loop.time()
    found = await ask()
    return _Found(found=found, at=asked_at, took=loop.time() - asked_at)
