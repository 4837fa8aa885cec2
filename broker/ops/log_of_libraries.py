"""What libraries log through `logging`, in the broker's own log: warnings and worse.

Libraries put addresses with queries, requests and reprs into their messages (law 7). So of what
they say only the constant part is repeated: a format keeps its numbers and loses its other
arguments; a text that came without arguments, and may have been put together before, is cut at the
first sign of a value. Exceptions are told as defects are.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from broker.config import LogLevel
from broker.ops.failures import kind_of, trace_of
from broker.ops.logs import Log
from broker.ops.sampling import Sampler

# What they warn of, the broker meets itself, as an exception.
_ONLY_ERRORS: Final = frozenset({"httpx", "httpcore"})

_LONGEST_MESSAGE: Final = 200
"""Characters. What they say in one line is shorter."""

# A number, a quote, a bracket, an equals sign, an escape.
_VALUE: Final = re.compile(r"\s*(?:[\"'`<>(){}\[\]=@?&\\#]|\d|:\s).*")

_ADDRESS: Final = re.compile(r"\S*://\S*")

_LEFT_OUT: Final = "…"


@contextmanager
def log_of_libraries(log: Log) -> Iterator[None]:
    """Takes over the root logger as long as the context lasts."""
    root, handler = logging.getLogger(), _IntoLog(log)
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.setLevel(before)
        root.removeHandler(handler)


class _IntoLog(logging.Handler):
    """Tells the broker's log of records."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log
        self._sampler = Sampler(time.monotonic)

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a line. The log never raises, and nothing of a record is formatted as it asks."""
        is_error = record.levelno >= logging.ERROR
        if not is_error and record.name.partition(".")[0] in _ONLY_ERRORS:
            return
        error = record.exc_info[1] if record.exc_info else None
        # An exporter of traces whose collector is away says so again and again; with other numbers.
        held_back = self._sampler.admit((record.name, constant_part(record.msg, ())))
        if held_back is None:
            return
        self._log.event(
            "library_message",
            level=LogLevel.ERROR if is_error else LogLevel.WARNING,
            logger=record.name,
            message=constant_part(record.msg, record.args),
            held_back=held_back or None,
            error=None if error is None else kind_of(error),
            trace=None if error is None else trace_of(error),
        )


def constant_part(message: object, arguments: object) -> str:
    """Returns of a record's message what holds no value but numbers; one line."""
    if not isinstance(message, str):
        return _LEFT_OUT
    line = _ADDRESS.sub(_LEFT_OUT, message.partition("\n")[0][:_LONGEST_MESSAGE])
    if not arguments:
        return _VALUE.sub(_LEFT_OUT, line, count=1)
    try:
        return line % _shown(line, arguments)
    except (TypeError, ValueError, KeyError):  # the format wants what only the value could give
        return line


def _shown(line: str, arguments: object) -> object:
    """Returns the arguments as they may be shown. A lone mapping is its fields, or one argument."""
    if isinstance(arguments, Mapping) and "%(" in line:
        return {name: _shown_one(each) for name, each in arguments.items()}
    several = arguments if isinstance(arguments, tuple) else (arguments,)
    return tuple(_shown_one(each) for each in several)


def _shown_one(argument: object) -> object:
    return argument if isinstance(argument, int | float) else _LEFT_OUT
