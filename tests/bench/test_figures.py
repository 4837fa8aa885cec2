"""Figures on real servers with hardly anything to measure: that their modules run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import pytest

from bench import due, herd, keeping_up, polling, rotating, starting
from bench.figures import Figure, Step

pytestmark = pytest.mark.timeout(180)

FIGURES: Final[dict[str, Callable[[int, Step], Awaitable[Figure]]]] = {
    "tick": partial(due.renewal_ticks, sizes=(1_500,)),
    "poll": partial(polling.polls_of_an_idle_fleet, grants=1_500),
    "start": partial(starting.start_to_ready, grants=1_500),
    "rotation": partial(rotating.rotations_against_bare_calls, rounds=1),
}


@pytest.mark.parametrize("name", FIGURES)
async def test_a_figure_is_measured_in_as_many_pairs(name: str) -> None:
    steps: list[None] = []

    figure = await FIGURES[name](1, lambda: steps.append(None))

    assert len(steps) == len(figure.pairs) == 1
    assert figure.ratio > 0


async def test_a_herd_causes_one_presentation_each_time() -> None:
    figure = await herd.slowest_of_a_herd(1, lambda: None, callers=90)

    assert figure.ratio >= 1
    assert "presentations each: 1 at most" in figure.note


async def test_renewals_keep_below_their_limit() -> None:
    figure = await keeping_up.renewals_at_the_limit(1, lambda: None, rate=20, seconds=1.0)

    assert 0 < figure.ratio < 1.1
    assert "dead tokens shown: 0" in figure.note
