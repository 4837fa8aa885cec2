"""How long a server that leaves waits before it stops."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import pytest

from broker.rpc.leaving import LONGEST_SECONDS, SILENCE_SECONDS, until_silent
from support.virtual_time import START, in_virtual_time


def silent_since(moment: float) -> Callable[[], float]:
    """Nobody calls any more."""
    return lambda: asyncio.get_running_loop().time() - moment


def called_every(seconds: float) -> Callable[[], float]:
    """Somebody goes on calling."""
    return lambda: math.fmod(asyncio.get_running_loop().time() - START, seconds)


async def waited(silence: Callable[[], float], *, is_watched: bool, longest: float = 1.0) -> float:
    """Returns for how long it waited."""
    began = asyncio.get_running_loop().time()
    await until_silent(silence, is_watched=is_watched, longest=longest)
    return asyncio.get_running_loop().time() - began


@in_virtual_time
async def test_who_is_called_by_nobody_stops_at_once() -> None:
    assert await waited(silent_since(-math.inf), is_watched=False) == 0


@in_virtual_time
async def test_who_watches_is_given_time_to_leave() -> None:
    took = await waited(silent_since(-math.inf), is_watched=True)

    assert SILENCE_SECONDS / 2 < took <= SILENCE_SECONDS


@in_virtual_time
async def test_a_call_before_the_end_begins_counts_as_one_after() -> None:
    took = await waited(silent_since(START), is_watched=False)

    assert SILENCE_SECONDS / 2 < took <= SILENCE_SECONDS


@in_virtual_time
async def test_callers_who_do_not_watch_are_left_in_a_gap_between_calls() -> None:
    every = 0.05
    took = await waited(called_every(every), is_watched=True)

    assert took < LONGEST_SECONDS
    assert math.fmod(took, every) > every / 2


@pytest.mark.parametrize("longest", [0.0, 0.1, LONGEST_SECONDS])
@in_virtual_time
async def test_it_is_over_in_time_whoever_calls(longest: float) -> None:
    took = await waited(lambda: 0.0, is_watched=True, longest=longest)

    assert took == pytest.approx(longest, abs=0.01)
