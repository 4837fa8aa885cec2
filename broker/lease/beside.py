"""A task that runs beside a block and ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager


@asynccontextmanager
async def running_beside(work: Coroutine[None, None, None], *, name: str) -> AsyncIterator[None]:
    """Runs `work`, which raises nothing, while the block runs; cancels it and awaits its end.

    What the block raises comes out as itself, where a TaskGroup alone would make a group of it.
    """
    failure: BaseException | None = None
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work, name=name)
        try:
            yield
        # Raised again below, a cancellation too: outside the group, which would wrap it.
        except BaseException as error:  # noqa: BLE001
            failure = error
        task.cancel()
    if failure is not None:
        try:
            raise failure
        finally:
            del failure  # it holds this frame by its traceback
