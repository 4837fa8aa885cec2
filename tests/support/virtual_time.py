"""An event loop whose clock jumps: where everybody waits, it is at once as late as they wait for.

For code that waits by the loop's own clock, and does no I/O. Hours take milliseconds, are kept to
the microsecond, and take always the same turns in the same order. Where nobody will ever go on, the
test fails at once instead of hanging.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from heapq import heappop, heappush
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

START: Final = 0.0
"""What a new loop's clock shows."""


class NobodyGoesOnError(RuntimeError):
    """Everybody waits for what will not come: a mistake of the test, or a hang of the code."""


class _Turn(asyncio.TimerHandle):
    """Something to be called, now or later."""

    __slots__ = ("args", "at", "callback", "context", "is_off")

    def __init__(
        self, at: float, callback: Callable[..., object], args: tuple[object, ...], context: Context
    ) -> None:
        # Not the base's: a schedule of the simulation makes thousands, and asks nothing of them.
        self.at = at
        self.callback = callback
        self.args = args
        self.context = context
        self.is_off = False

    def cancel(self) -> None:
        self.is_off = True

    def cancelled(self) -> bool:
        return self.is_off

    def when(self) -> float:
        return self.at


class _VirtualLoop(asyncio.BaseEventLoop):
    """A loop without selector: who is due at the same time goes in the order of asking."""

    def __init__(self) -> None:
        super().__init__()
        self._now = START
        self._due: deque[_Turn] = deque()
        self._timers: list[tuple[float, int, _Turn]] = []
        self._count = 0
        self._is_stopped = False

    def time(self) -> float:
        return self._now

    def call_soon(
        self, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> asyncio.Handle:
        turn = _Turn(self._now, callback, args, context or copy_context())
        self._due.append(turn)
        return turn

    # Nobody sleeps in a selector who would have to be woken.
    call_soon_threadsafe = call_soon

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: object,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        # As `call_at`, without the way there: most of what waits here waits so.
        when = self._now + delay
        turn = _Turn(when, callback, args, context or copy_context())
        self._count += 1
        heappush(self._timers, (when, self._count, turn))
        return turn

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: object,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        turn = _Turn(when, callback, args, context or copy_context())
        self._count += 1
        heappush(self._timers, (when, self._count, turn))
        return turn

    def _run_once(self) -> None:
        """Gives everybody a turn who is due, until the loop is stopped."""
        due, timers = self._due, self._timers
        while True:
            if not due:
                self._let_time_pass()
            now = self._now
            while timers and timers[0][0] <= now:
                due.append(heappop(timers)[2])
            for _ in range(len(due)):
                turn = due.popleft()
                if turn.is_off:
                    continue
                try:
                    turn.context.run(turn.callback, *turn.args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # noqa: BLE001 - as every loop: told, and the next
                    told = {"message": f"{turn.callback!r} failed", "exception": error}
                    self.call_exception_handler(told)
            if self._is_stopped:
                self._is_stopped = False
                return

    def stall(self, seconds: float) -> None:
        self._now += seconds

    def stop(self) -> None:
        super().stop()
        self._is_stopped = True

    def _let_time_pass(self) -> None:
        timers = self._timers
        while timers and timers[0][2].is_off:
            heappop(timers)
        if not timers:
            raise NobodyGoesOnError("every task waits, and no timer is set")
        self._now = max(self._now, timers[0][0])


def run_virtual(main: Coroutine[object, object, T], *, debug: bool | None = None) -> T:
    """Runs a story on a loop of this kind. `debug` None: as asyncio is told by its environment."""
    with asyncio.Runner(loop_factory=_VirtualLoop, debug=debug) as runner:
        return runner.run(main)


def in_virtual_time(test: Callable[P, Coroutine[object, object, None]]) -> Callable[P, None]:
    """Makes a test of a coroutine, on a loop of this kind."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        run_virtual(test(*args, **kwargs))

    return run


async def nap(seconds: float) -> None:
    """Lets time pass as `asyncio.sleep` does, which is half of what a simulation does, for less."""
    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()
    loop.call_later(seconds, _wake, woken)
    await woken


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():  # or it was cancelled
        sleeper.set_result(None)


async def pass_time(seconds: float) -> None:
    """Lets time pass; everybody else's waits come to their ends meanwhile."""
    await asyncio.sleep(seconds)


def stand_still(seconds: float) -> None:
    """Lets time pass in which nobody has a turn, as where the machine gives the process none."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, _VirtualLoop)
    loop.stall(seconds)


async def let_others_run(*, turns: int = 20) -> None:
    """Lets everybody go on who can, without time going by."""
    for _ in range(turns):
        await asyncio.sleep(0)
