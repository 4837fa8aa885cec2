"""What a measurement is: pairs of a value and its baseline, taken in turn in the same run.

A figure is judged by the median of its pairs' ratios. What it is worth is told beside it: how far
the ratios lie apart, and what hangs on the machine.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Final, TypeAlias

_FEWEST_FOR_QUARTILES: Final = 4
"""Pairs, below which the spread is that of all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One value and its baseline, measured one after the other."""

    value: float
    baseline: float

    @property
    def ratio(self) -> float:
        """The value, with the baseline as one."""
        return self.value / self.baseline


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Something that was measured."""

    name: str
    baseline: str
    """What it is compared with, in words."""

    unit: str
    aim: float
    is_floor: bool
    """True: the ratio shall be at least the aim; False: at most."""

    pairs: tuple[Pair, ...]
    note: str = ""

    @property
    def ratio(self) -> float:
        """The median of all pairs."""
        return median(each.ratio for each in self.pairs)

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles of the ratios; the least and the most, of few pairs."""
        ratios = sorted(each.ratio for each in self.pairs)
        if len(ratios) < _FEWEST_FOR_QUARTILES:
            return ratios[0], ratios[-1]
        low, _, high = quantiles(ratios, n=4, method="inclusive")
        return low, high

    @property
    def is_met(self) -> bool:
        """Whether the median is on the right side of the aim."""
        return self.ratio >= self.aim if self.is_floor else self.ratio <= self.aim

    def as_json(self) -> Mapping[str, object]:
        """Returns all of it, for whoever compares runs."""
        return {
            "name": self.name,
            "baseline": self.baseline,
            "unit": self.unit,
            "aim": self.aim,
            "aim_is": "at least" if self.is_floor else "at most",
            "ratio": self.ratio,
            "spread": self.spread,
            "is_met": self.is_met,
            "pairs": [[each.value, each.baseline] for each in self.pairs],
            "note": self.note,
        }


Step: TypeAlias = Callable[[], None]
"""To be called after each pair, for the progress bar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A figure that can be measured, and in how many steps."""

    name: str
    pairs: int
    measure: Callable[[int, Step], Awaitable[Figure]]
    """Is given the number of pairs."""
