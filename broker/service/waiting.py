"""What a caller does while a flight is under way: patience, the living token, its own deadline.

Nothing here touches the flight: a caller comes and goes (law 8).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import Final, TypeVar

from broker.domain.errors import (
    BrokerError,
    OperatorError,
    RefreshInProgress,
    RefreshOutcomeUnknown,
    TransientError,
)
from broker.service.flights import Flight
from broker.service.memory import Memory
from broker.service.messages import ServedToken

T = TypeVar("T")

PATIENCE: Final = 2.0
"""Seconds that a caller waits for a renewal although the old token is within its life: most
renewals take less, and the old token may be dead a moment later."""

_ANSWER_MARGIN: Final = 0.3
"""Seconds before the caller's deadline at which it is told REFRESH_IN_PROGRESS: an answer that
comes after the deadline is none. At most a tenth of the whole."""


async def wait_for(
    flight: Flight[ServedToken], memory: Memory, above_generation: int, budget: timedelta
) -> ServedToken:
    """Waits for the flight's token, or a living one, for as long as the caller can.

    Raises:
        BrokerError: the flight's, or REFRESH_IN_PROGRESS or REFRESH_OUTCOME_UNKNOWN.
    """
    try:
        return await _landed(flight, memory, above_generation, _seconds_of(budget))
    except (TransientError, OperatorError):
        # Neither says that the token is dead: it stands in while it lives.
        living = memory.living(flight.tenant, above_generation=above_generation)
        if living is None:
            raise
        return living


async def wait_for_landing(flight: Flight[T], budget: timedelta) -> T:
    """Waits for the flight's own answer: nothing stands in for it.

    Raises:
        BrokerError: as `wait_for`.
    """
    return await _landed_in_time(flight, _seconds_of(budget))


async def in_time(answer: Awaitable[T], tenant: str, budget: timedelta | None) -> T:
    """Waits for what a caller asked for, for as long as the caller can; None: as long as it takes.

    Then it is cancelled, as gRPC would at the deadline itself: a flight goes on.

    Raises:
        RefreshInProgress: the deadline came first. BrokerError: as `answer`.
    """
    limit = asyncio.timeout(None if budget is None else _seconds_of(budget))
    try:
        async with limit:
            return await answer
    except TimeoutError:
        if not limit.expired():
            raise
        raise RefreshInProgress("it goes on: ask again", tenant=tenant) from None


async def _landed(
    flight: Flight[ServedToken], memory: Memory, above_generation: int, seconds: float
) -> ServedToken:
    patience = min(PATIENCE, seconds)
    if await flight.landed(patience):
        return _answer(flight)
    if memory.living(flight.tenant, above_generation=above_generation) is not None:
        raise _in_progress(flight)
    return await _landed_in_time(flight, seconds - patience)


async def _landed_in_time(flight: Flight[T], seconds: float) -> T:
    if await flight.landed_or_overdue(seconds):
        return _answer(flight)
    if flight.overdue.done():
        raise RefreshOutcomeUnknown(
            "a refresh was sent to Pleo and no answer has come yet", tenant=flight.tenant
        )
    raise _in_progress(flight)


def _seconds_of(budget: timedelta) -> float:
    seconds = budget.total_seconds()
    return seconds - min(_ANSWER_MARGIN, seconds / 10)


def _in_progress(flight: Flight[T]) -> BrokerError:
    return RefreshInProgress("the refresh goes on: ask again", tenant=flight.tenant)


def _answer(flight: Flight[T]) -> T:
    error = flight.landing.exception()
    if error is not None:
        # Raised as it is by many callers at once: each would add its own frames to it.
        raise error.with_traceback(None)
    return flight.landing.result()
