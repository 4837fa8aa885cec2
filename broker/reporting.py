"""How the fleet is, put together from everybody who knows a part: for on-call and the status page.

Part of the composition (`app.py`). Whoever does not answer in a moment is left out of the report,
and the rest is told: that is when somebody asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar

import asyncpg
from prometheus_client import CollectorRegistry

from broker.config import ServeSettings
from broker.domain.errors import StoreUnavailable
from broker.domain.fleet_report import DependencyReport, FleetReport, FleetTally, KeyUse
from broker.domain.trouble import Trouble
from broker.lease.escrows import RedisEscrows
from broker.ops.health import CheckState, Health
from broker.ops.server import Shown
from broker.ops.status_view import Overview, StatusSource
from broker.service.fleet import Fleet
from broker.store.rewrapping import PostgresKeys
from broker.store.sealing import KeyDescription, Keyring
from broker.store.tally import PostgresTally

T = TypeVar("T")

PATIENCE_SECONDS: Final = 2.0
"""For all of it: a person waits, and what takes longer is itself a thing to report."""

DEPENDENCIES: Final = ("postgres", "redis", "pleo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """Who counts. Each may take its time, and may raise `StoreUnavailable`."""

    tally: Callable[[], Awaitable[FleetTally]]
    rows_by_key: Callable[[], Awaitable[Mapping[int, int]]]
    escrows: Callable[[], Awaitable[int | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """Upholds `rpc.ports.FleetReports`."""

    home: str
    environment: str
    replica: str
    health: Health
    fleet: Fleet
    counting: Counting
    keys: Callable[[], Sequence[KeyDescription]]
    """Of the keyset that this replica has."""

    async def fleet_report(self) -> FleetReport:
        """See the port."""
        async with asyncio.TaskGroup() as tasks:
            tally = tasks.create_task(_in_time(self.counting.tally), name="tally")
            rows = tasks.create_task(_in_time(self.counting.rows_by_key), name="rows by key")
            escrows = tasks.create_task(_in_time(self.counting.escrows), name="escrows")
        snapshot, now = self.health.snapshot(), datetime.now(UTC)
        return FleetReport(
            home=self.home,
            environment=self.environment,
            replica=self.replica,
            dependencies=tuple(_dependency(snapshot.check(name), now) for name in DEPENDENCIES),
            breaker=self.fleet.breaker,
            guard=self.fleet.guard,
            tally=tally.result(),
            keys=_key_uses(self.keys(), rows.result()),
            escrow_count=escrows.result(),
        )

    def troubles(self) -> tuple[Trouble, ...]:
        """See the port."""
        return self.health.snapshot().troubles


async def _in_time(count: Callable[[], Awaitable[T]]) -> T | None:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await count()
    # PostgresError: the schema is not there yet, or is another one.
    except (TimeoutError, StoreUnavailable, asyncpg.PostgresError):
        return None


def _dependency(state: CheckState, now: datetime) -> DependencyReport:
    return DependencyReport(
        name=state.name,
        is_healthy=state.is_good,
        checked_at=None if state.age is None else now - state.age,
        last_error=state.last_error,
    )


def _key_uses(keys: Sequence[KeyDescription], rows: Mapping[int, int] | None) -> tuple[KeyUse, ...]:
    """Returns nothing where nobody knows the counts: a key without rows may be removed."""
    if rows is None:
        return ()
    here = {key.key_id: key for key in keys}
    return tuple(
        KeyUse(
            key_id=key_id,
            is_primary=key_id in here and here[key_id].is_primary,
            is_available=key_id in here and here[key_id].status == "ENABLED",
            row_count=rows.get(key_id, 0),
        )
        for key_id in sorted(here.keys() | rows.keys())
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporting:
    """Who knows a part."""

    settings: ServeSettings
    health: Health
    fleet: Fleet
    tally: PostgresTally
    keys: PostgresKeys
    escrows: RedisEscrows
    keyring: Keyring

    def reporter(self) -> Reporter:
        """Makes who answers GetFleetStatus."""
        return Reporter(
            home=self.settings.home,
            environment=self.settings.pleo_environment.value,
            replica=self.fleet.replica,
            health=self.health,
            fleet=self.fleet,
            counting=Counting(
                tally=self.tally.tally,
                rows_by_key=self.keys.key_use,
                escrows=self.escrows.count,
            ),
            keys=self.keyring.describe,
        )

    def overview(self) -> Overview:
        """Makes who collects for the page."""
        return Overview(self.tally.tally, self.tally.hour)

    def shown(self, registry: CollectorRegistry, overview: Overview) -> Shown:
        """Makes what the ops address shows."""
        source = StatusSource(
            home=self.settings.home,
            environment=self.settings.pleo_environment.value,
            health=self.health,
            fleet=self.fleet,
            overview=overview,
        )
        return Shown(health=self.health, registry=registry, status=source.view)
