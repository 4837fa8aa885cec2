"""Counters and distributions for the way of every call: plain numbers, read when somebody looks.

Those of prometheus-client take a lock and several calls each, two microseconds for one call that
goes well. These are counted and read on the event loop alone, where nobody interrupts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from functools import partial
from itertools import accumulate

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector


class Tally:
    """How often something happened."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Spread:
    """How long something took, counted by bounds."""

    __slots__ = ("bounds", "counts", "seconds")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """`bounds`: ascending, in seconds; each counts what took no longer."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """Counts one."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.seconds += seconds


class Tallies(Collector):
    """A counter with labels."""

    def __init__(self, name: str, tells: str, *, labels: tuple[str, ...]) -> None:
        """`name`: with prefix and without `_total`."""
        self._family = partial(CounterMetricFamily, name, tells, labels=labels)
        self._series: dict[tuple[str, ...], Tally] = {}

    def of(self, *values: str) -> Tally:
        """Returns the series of these labels, which is shown from then on."""
        return self._series.setdefault(values, Tally())

    def collect(self) -> Iterator[Metric]:
        """Shows all series."""
        family = self._family()
        for values, tally in self._series.items():
            family.add_metric(values, tally.count)
        yield family


class Spreads(Collector):
    """A distribution with labels."""

    def __init__(
        self, name: str, tells: str, *, labels: tuple[str, ...], bounds: tuple[float, ...]
    ) -> None:
        """`name`: with prefix; `bounds`: as `Spread` has them."""
        self._family = partial(HistogramMetricFamily, name, tells, labels=labels)
        self._bounds = bounds
        self._series: dict[tuple[str, ...], Spread] = {}

    def of(self, *values: str) -> Spread:
        """Returns the series of these labels, which is shown from then on."""
        return self._series.setdefault(values, Spread(self._bounds))

    def collect(self) -> Iterator[Metric]:
        """Shows all series."""
        family = self._family()
        for values, spread in self._series.items():
            family.add_metric(values, _buckets(spread), spread.seconds)
        yield family


def _buckets(spread: Spread) -> list[tuple[str, float]]:
    bounds = (*(str(float(bound)) for bound in spread.bounds), "+Inf")
    return list(zip(bounds, accumulate(map(float, spread.counts)), strict=True))
