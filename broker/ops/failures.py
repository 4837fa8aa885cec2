"""What a log may say of an exception: its kind and where it came about, never its words.

Drivers quote what they met, and so may hold a token, an address with a password, or a row. Frames
are named by file, line and function; no source line and no variable is in them. The messages of
`BrokerError` are ours and hold no secret (law 7).
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Iterator
from typing import Final

from broker.domain.errors import BrokerError

# A recursion without end has a thousand frames, of which the last say what they are.
_MOST_FRAMES: Final = 30
# Of exceptions that caused one another, or that one group holds: more than libraries make.
_MOST_ERRORS: Final = 8


def kind_of(error: BaseException) -> str:
    """Returns the class of an exception, as `asyncpg.exceptions.InterfaceError`."""
    kind = type(error)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{module}{kind.__qualname__}"


def message_of(error: BaseException) -> str | None:
    """Returns what an error of ours says; None for anybody else's."""
    return error.message if isinstance(error, BrokerError) else None


def trace_of(error: BaseException) -> list[str]:
    """Returns where it came about, outermost frame first, and then the same of what caused it."""
    lines = _frames(error)
    for number, cause in enumerate(_behind(error), start=1):
        if number == _MOST_ERRORS:
            return [*lines, "and more"]
        lines += [f"because of {kind_of(cause)}", *_frames(cause)]
    return lines


def _frames(error: BaseException) -> list[str]:
    frames = deque(traceback.walk_tb(error.__traceback__), maxlen=_MOST_FRAMES)
    return [
        f"{frame.f_code.co_filename}:{line} in {frame.f_code.co_qualname}" for frame, line in frames
    ]


def _behind(error: BaseException) -> Iterator[BaseException]:
    """Gives what a group holds and what caused an error, each once: they may go in circles."""
    seen = {id(error)}
    waiting = deque(_next(error))
    while waiting:
        each = waiting.popleft()
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting.extend(_next(each))


def _next(error: BaseException) -> list[BaseException]:
    inside = list(error.exceptions) if isinstance(error, BaseExceptionGroup) else []
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return inside if cause is None else [*inside, cause]
