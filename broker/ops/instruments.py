"""Makes metrics of one registry, all under one prefix; and the bounds that they share.

No label says which tenant, caller or grant: the ops address asks nobody who they are, and a series
for each customer would be the end of any Prometheus. Every label's values are few and our own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from broker.ops.tallies import Spreads, Tallies

_PREFIX: Final = "token_broker"

CALL_SECONDS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30,
)  # fmt: skip
"""An answer from memory takes less than a millisecond; 30 s is the deadline of who sets none."""

REFRESH_SECONDS: Final = (
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 15, 30, 80,
)  # fmt: skip
"""From an answer on the same machine to the deadline of an attempt: 30 s with the default timeout
of Pleo, 80 s with the longest. 2 s is the patience of callers who hold a living token, 10 s that
with a whole token request."""

LAG_SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
"""From a loop that has nothing to do to one whose replica fails its liveness probe."""

CALLERS: Final = (1, 2, 5, 10, 25, 100, 1000)
"""From a caller alone to the herd that the broker is built for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruments:
    """Makes metrics; names are without the prefix, those of counters without `_total`."""

    registry: CollectorRegistry

    def counter(self, name: str, tells: str, *, labels: tuple[str, ...] = ()) -> Counter:
        """Makes what only grows."""
        return Counter(name, tells, labels, namespace=_PREFIX, registry=self.registry)

    def gauge(self, name: str, tells: str, *, labels: tuple[str, ...] = ()) -> Gauge:
        """Makes what rises and falls."""
        return Gauge(name, tells, labels, namespace=_PREFIX, registry=self.registry)

    def read(self, name: str, tells: str, *, now: Callable[[], float]) -> None:
        """Makes a gauge that is read when somebody looks; `now` must not raise."""
        self.gauge(name, tells).set_function(now)

    def read_total(self, name: str, tells: str, *, now: Callable[[], int]) -> None:
        """Makes a counter of what somebody else counts; `now` must not raise."""
        self.registry.register(_ReadTotal(f"{_PREFIX}_{name}", tells, now))

    def read_if_known(self, name: str, tells: str, *, now: Callable[[], float | None]) -> None:
        """Makes a gauge that shows nothing while `now` returns None; `now` must not raise."""
        self.registry.register(_ReadIfKnown(f"{_PREFIX}_{name}", tells, now))

    def histogram(
        self, name: str, tells: str, *, bounds: tuple[float, ...], labels: tuple[str, ...] = ()
    ) -> Histogram:
        """Makes a distribution."""
        return Histogram(
            name, tells, labels, namespace=_PREFIX, registry=self.registry, buckets=bounds
        )

    def tallies(self, name: str, tells: str, *, labels: tuple[str, ...]) -> Tallies:
        """Makes what only grows, for the way of every call."""
        made = Tallies(f"{_PREFIX}_{name}", tells, labels=labels)
        self.registry.register(made)
        return made

    def spreads(
        self, name: str, tells: str, *, bounds: tuple[float, ...], labels: tuple[str, ...]
    ) -> Spreads:
        """Makes a distribution, for the way of every call."""
        made = Spreads(f"{_PREFIX}_{name}", tells, labels=labels, bounds=bounds)
        self.registry.register(made)
        return made

    def says(self, name: str, tells: str, **words: str) -> None:
        """Makes a series that only carries words."""
        Info(name, tells, namespace=_PREFIX, registry=self.registry).info(words)


@dataclass(frozen=True, slots=True)
class _ReadTotal(Collector):
    name: str
    tells: str
    now: Callable[[], int]

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(self.name, self.tells, value=self.now())


@dataclass(frozen=True, slots=True)
class _ReadIfKnown(Collector):
    name: str
    tells: str
    now: Callable[[], float | None]

    def collect(self) -> Iterator[Metric]:
        known = self.now()
        family = GaugeMetricFamily(self.name, self.tells)
        if known is not None:
            family.add_metric((), known)
        yield family


def from_zero(counter: Counter, members: type[Enum]) -> Counter:
    """Shows a counter's series before anything is counted, one for each member of an enum.

    `increase()` does not see a series that begins at 1, so that the first would alert nobody.
    """
    for member in members:
        counter.labels(word(member))
    return counter


def word(member: Enum | None) -> str:
    """Returns an enum's member as a label has it; empty for none."""
    return "" if member is None else member.name.lower()
