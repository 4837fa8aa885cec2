"""An event loop whose clock jumps: where everybody waits, it is at once as late as they wait for.

For code that waits by the loop's own clock, and does no I/O. Hours take milliseconds, are kept to
the microsecond, and take always the same turns in the same order. Where nobody will ever go on, the
test fails at once instead of hanging.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

START: Final = 0.0
"""What a new loop's clock shows."""


class NobodyGoesOnError(RuntimeError):
    """Everybody waits for what will not come: a mistake of the test, or a hang of the code."""


class _Jumping(selectors.SelectSelector):
    """Lets the time pass that it is told to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Waits for nothing."""
        ready = super().select(0)
        if not ready and timeout is None:
            raise NobodyGoesOnError("every task waits, and no timer is set")
        if not ready:
            self.now += max(timeout or 0.0, 0.0)
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Jumping()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


def run_virtual(main: Coroutine[object, object, T]) -> T:
    """Runs a story on a loop of this kind."""
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        return runner.run(main)


def in_virtual_time(test: Callable[P, Coroutine[object, object, None]]) -> Callable[P, None]:
    """Makes a test of a coroutine, on a loop of this kind."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        run_virtual(test(*args, **kwargs))

    return run


async def pass_time(seconds: float) -> None:
    """Lets time pass; everybody else's waits come to their ends meanwhile."""
    await asyncio.sleep(seconds)


async def let_others_run(*, turns: int = 20) -> None:
    """Lets everybody go on who can, without time going by."""
    for _ in range(turns):
        await asyncio.sleep(0)
