"""What going without Redis looks like in this room, and a guard for every await on redis-py.

No text of an error is repeated: Redis quotes the arguments of a command that it does not know, and
those of AUTH and HELLO are a password (law 7). The names of the classes tell enough.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from itertools import islice
from typing import Final, TypeVar

Given = TypeVar("Given")

# An error, what it was made of and what that was made of: deeper lies the event loop.
_DEPTH: Final = 3


class RedisUnreachable(Exception):  # noqa: N818 - a state of the world; the name of its outcome
    """Redis did not do what it was asked for. Stays within this room."""

    def __init__(self, why: str, *, has_answered: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.has_answered = has_answered
        """It answered, with an error such as OOM or READONLY: that cost no more than an answer."""


def name_failure(error: BaseException) -> str:
    """Returns the classes of an error and of its causes, without a word of their texts."""
    return " from ".join(type(each).__name__ for each in islice(_causes(error), _DEPTH))


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


async def heeding(answer: Awaitable[Given]) -> Given:
    """Awaits, and raises the cancellation that the awaited has swallowed.

    On Python 3.11 `asyncio.wait_for`, with which redis-py writes, returns normally when it is
    cancelled at the moment in which it is done (bpo-37658): the holder of a lease would live on.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        given = await answer
    except Exception:
        _raise_if_cancelled(task, before)
        raise
    _raise_if_cancelled(task, before)
    return given


def _raise_if_cancelled(task: asyncio.Task[object] | None, before: int) -> None:
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError
