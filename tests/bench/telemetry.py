"""What metrics and log take of a token from memory: the same server without them is the baseline.

`bench.observing` takes it apart on one loop; here the callers stand in processes of their own, as
in `bench.hot_path`, so that only the servers' time is counted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from statistics import median
from typing import Final

from bench.figures import Figure, Step
from bench.hot_path import (
    Transport,
    answered_by,
    by_turns,
    connected,
    figure_of,
    pairs_of,
    target_of,
)
from bench.observing import serving_at, watchers_of
from bench.standing import StandingCaller, standing_caller
from support.service import fleet

_WARM: Final = 1000
"""Calls before the first that count."""


async def over_none(pairs: int, step: Step, *, calls: int) -> Figure:
    """Measures what metrics and log take of it: the same server without them is the baseline."""
    async with _observed() as callers:
        spent = await pairs_of(pairs, step, lambda: by_turns(callers, calls))
    figure = figure_of("GetAccessToken, metrics and log on", spent, calls=calls, aim=0.95)
    traced = median(each[1].of_processor / each[2].of_processor for each in spent)
    return replace(
        figure,
        baseline="the same server without them",
        note=f"{figure.note}; with traces: {traced:.3f}",
    )


@asynccontextmanager
async def _observed() -> AsyncIterator[Sequence[StandingCaller]]:
    """Serves the same three times, and connects: told of, told to nobody, and traced as well."""
    async with fleet() as world, watchers_of() as watchers, AsyncExitStack() as opened:
        connected(world, 0)
        callers = []
        for name in ("metrics and log", "off", "and traces"):
            port = await opened.enter_async_context(serving_at(world, watchers[name]))
            target = target_of(port, Transport())
            await answered_by(target)
            callers.append(await opened.enter_async_context(standing_caller(target)))
            await callers[-1].as_fast(_WARM)
        yield callers
