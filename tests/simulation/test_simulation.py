"""Seeded schedules of the whole service: the laws hold, and a seed tells one story."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from simulation.batches import spread
from simulation.profiles import PROFILES, seeds_of
from simulation.schedule import first_broken, run_schedule

SEEDS_AT_ONCE = 26
"""A second or so."""

INCIDENTS = 20
"""Schedules in which so many are refused that the guard holds in most: a second."""


@pytest.mark.parametrize("first", range(0, 10 * SEEDS_AT_ONCE, SEEDS_AT_ONCE))
def test_no_law_is_broken_in_any_of_these_schedules(first: int) -> None:
    outcome = first_broken(range(first, first + SEEDS_AT_ONCE))

    assert outcome is None, "\n".join(outcome.story)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_same_seed_tells_the_same_story_twice(profile: str) -> None:
    for seed in islice(seeds_of(profile), 2):
        assert run_schedule(seed).story == run_schedule(seed).story


def test_different_seeds_tell_different_stories() -> None:
    stories = {run_schedule(seed).story for seed in range(10)}

    assert len(stories) == 10


def test_a_seed_tells_the_same_in_another_process() -> None:
    seeds = range(3)

    with spread(run_schedule, seeds, jobs=2) as done:
        assert list(done) == [run_schedule(seed) for seed in seeds]


def test_the_guard_holds_and_every_end_of_a_hold_is_seen() -> None:
    """Or what is said about it would be true of nothing."""
    stories = [run_schedule(seed) for seed in islice(seeds_of("incident"), INCIDENTS)]

    seen = Counter(what for story in stories for what in story.guarded)

    assert seen["HOLDING"] > INCIDENTS // 2
    for what in (
        "CONFIRMING by on-call", "CONFIRMING by broker", "DISCARDING by on-call",
        "DISCARDING by broker", "HELD to REAUTH_REQUIRED", "HELD to ACTIVE",
    ):  # fmt: skip
        assert seen[what] > 1, what
