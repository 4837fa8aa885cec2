"""An event loop beside the main one, in a thread of its own, for what must answer in any case."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress


@asynccontextmanager
async def in_own_thread(
    context: AbstractAsyncContextManager[None], *, name: str
) -> AsyncIterator[None]:
    """Enters an asynchronous context on a loop of its own, and leaves it there with the block.

    Raises what entering or leaving raises.
    """
    loop, leave = asyncio.new_event_loop(), asyncio.Event()
    entered: Future[None] = Future()
    left: Future[None] = Future()
    for each in (entered, left):
        # Who waits here may be cancelled; the thread's own word is not.
        each.set_running_or_notify_cancel()

    async def stay() -> None:
        async with context:
            entered.set_result(None)
            await leave.wait()

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(stay())
        except BaseException as error:  # noqa: BLE001 - a thread has nobody else to tell
            (left if entered.done() else entered).set_exception(error)
        if not left.done():
            left.set_result(None)

    # A daemon: where the main loop dies otherwise than in order, this one must not stay behind.
    threading.Thread(target=run, name=name, daemon=True).start()
    try:
        await asyncio.wrap_future(entered)
        yield
    finally:
        with suppress(RuntimeError):  # it has closed its loop already
            loop.call_soon_threadsafe(leave.set)
        await asyncio.wrap_future(left)
