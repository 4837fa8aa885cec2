"""Seeded schedules of the whole service: the laws hold, and a seed tells one story."""

from __future__ import annotations

import pytest

from simulation.schedule import first_broken, run_schedule

SEEDS_AT_ONCE = 10
"""About two seconds."""


@pytest.mark.parametrize("first", range(0, 5 * SEEDS_AT_ONCE, SEEDS_AT_ONCE))
def test_no_law_is_broken_in_any_of_these_schedules(first: int) -> None:
    outcome = first_broken(range(first, first + SEEDS_AT_ONCE))

    assert outcome is None, "\n".join(outcome.story)


@pytest.mark.parametrize("seed", [0, 6, 23])
def test_the_same_seed_tells_the_same_story_twice(seed: int) -> None:
    assert run_schedule(seed).story == run_schedule(seed).story


def test_different_seeds_tell_different_stories() -> None:
    stories = {run_schedule(seed).story for seed in range(10)}

    assert len(stories) == 10
