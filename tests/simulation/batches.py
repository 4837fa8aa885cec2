"""Many schedules on many cores. What a seed tells does not depend on who runs it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from simulation.schedule import Outcome, run_schedule

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What became of some schedules in a row."""

    ran: int
    presentations: int
    broken: tuple[Outcome, ...]


def run_batch(seeds: range) -> Batch:
    """Runs them all, whatever the first of them shows."""
    ran, presentations, broken = 0, 0, []
    for seed in seeds:
        outcome = run_schedule(seed)
        ran, presentations = ran + 1, presentations + outcome.presentations
        if outcome.broken is not None:
            broken.append(outcome)
    return Batch(ran=ran, presentations=presentations, broken=tuple(broken))


@contextmanager
def spread(work: Callable[[T], R], items: Iterable[T], *, jobs: int) -> Iterator[Iterator[R]]:
    """Gives the results in the order of the items; leaving early ends what is under way."""
    if jobs == 1:
        yield map(work, items)
        return
    # Not forked: whoever asks may have threads, and a loop that has run.
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield pool.imap(work, items)
