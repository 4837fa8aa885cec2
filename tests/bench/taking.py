"""Takes pairs: a value and its baseline in turn, so that a busy machine shows in both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from bench.figures import Pair, Step

Half: TypeAlias = Callable[[], Awaitable[float]]
"""Measures one half of a pair."""


async def take_pairs(pairs: int, step: Step, *, value: Half, baseline: Half) -> tuple[Pair, ...]:
    """Returns so many pairs; which half comes first turns, and one pair more warms up."""
    found = []
    for number in range(pairs + 1):
        if number % 2:
            one, other = await value(), await baseline()
        else:
            other, one = await baseline(), await value()
        if number:
            found.append(Pair(value=one, baseline=other))
            step()
    return tuple(found)
