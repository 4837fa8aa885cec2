"""What a running broker shows of itself beside facts and calls: counts, pool, the loop's lag."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from broker.ops.lag import watch_lag
from broker.ops.metrics import Metrics
from broker.ports import Observer
from broker.service.loops import repeat
from broker.service.running import Service
from broker.store.census import take_census
from broker.store.pool import Pool
from broker.store.sealing import Keyring

_CENSUS_SECONDS: Final = 60.0
"""Between counts of all grants: as often as most look at a graph, and of no weight at a million."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """What is shown, and where."""

    metrics: Metrics
    pool: Pool
    keyring: Keyring
    observer: Observer
    replica: str
    keepalive: timedelta

    def show(self, service: Service) -> None:
        """Shows what is read when somebody looks. Once for each instance of the metrics."""
        self.metrics.watch_holdings(service.holdings)
        self.metrics.watch_escrows(service.adoption)
        told = service.disclosures
        self.metrics.watch_disclosures(told, lost=lambda: told.lost)
        self.metrics.watch_pool(self.pool)
        self.metrics.watch_keyset(lambda: self.keyring.modified_at)

    async def census(self) -> None:
        """Counts all grants again and again, where this replica is the one that does."""
        await repeat("census", self._count, pause=_CENSUS_SECONDS, observer=self.observer)

    async def lag(self) -> None:
        """Watches the event loop."""
        await watch_lag(self.metrics.lagged)

    async def _count(self) -> None:
        taken = await take_census(self.pool, replica=self.replica, keepalive=self.keepalive)
        self.metrics.census_taken(taken)
