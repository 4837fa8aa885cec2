"""The log: one line an event, with a name that never changes and fields.

Upholds: no global configuration, so that two logs in one process stay apart; a line that cannot be
written (a pipe that is closed, or full) is counted and stops nobody; values are reduced to plain
ones, and an exception among them to its kind. What is logged, and how loudly, is decided by who
calls; how lines leave the process, in `outlet.py`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from enum import Enum, IntEnum
from pathlib import Path
from typing import Final, Protocol, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from broker.config import LogFormat, LogLevel
from broker.ops.failures import kind_of
from broker.ops.outlet import Outlet

_NUMBERS: Final[Mapping[LogLevel, int]] = {
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARNING: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
}


class Sink(Protocol):
    """Where lines go. Never raises, never waits."""

    @property
    def lost(self) -> int:
        """How many were lost since the start."""

    def take_untold(self) -> int:
        """Returns how many were lost that no line has told of; the next one must."""

    def write(self, line: str, *, telling: int = 0) -> None:
        """Takes a line, which tells of so many that were lost."""


class Log:
    """Writes lines."""

    def __init__(
        self,
        sink: Sink,
        *,
        log_format: LogFormat = LogFormat.JSON,
        level: LogLevel = LogLevel.INFO,
        colors: bool = False,
    ) -> None:
        """`level`: the least that is written. `colors`: for the console format."""
        self._sink = sink
        self._about: Callable[[], Mapping[str, object]] = dict
        self._least = _NUMBERS[level]
        self._logger: FilteringBoundLogger = structlog.wrap_logger(
            structlog.ReturnLogger(),
            processors=_processors(log_format, colors=colors),
            wrapper_class=structlog.make_filtering_bound_logger(self._least),
            context_class=dict,
        ).bind()

    @property
    def lost(self) -> int:
        """How many lines were lost since the start."""
        return self._sink.lost

    def tell_about(self, about: Callable[[], Mapping[str, object]]) -> None:
        """Adds to every line from now on what `about` returns as it is written.

        What an event says itself comes before it.
        """
        self._about = about

    def takes(self, level: LogLevel) -> bool:
        """Says whether an event of this level would be written."""
        return _NUMBERS[level] >= self._least

    def event(self, name: str, /, *, level: LogLevel = LogLevel.INFO, **fields: object) -> None:
        """Writes `broker_started` and the like. Fields that are None are left out. Never raises.

        Not for secrets: only those in a `Secret` would be held back.
        """
        if not self.takes(level):
            return
        all_fields = {**self._about(), **fields}
        told = {each: plain(value) for each, value in all_fields.items() if value is not None}
        untold = self._sink.take_untold()
        if untold:
            told["lines_lost"] = untold
        self._sink.write(self._logger.log(_NUMBERS[level], name, **told), telling=untold)


@contextmanager
def open_log(stream: TextIO | None, *, log_format: LogFormat, level: LogLevel) -> Iterator[Log]:
    """Gives a log on a stream of the system's, as standard error; all is written at its end.

    None: that stream was closed before this process began, and nobody is told anything.
    """
    with ExitStack() as stack:
        if stream is None:
            stream = stack.enter_context(Path(os.devnull).open("w"))
        outlet = Outlet(stream.fileno())
        stack.callback(outlet.close)
        yield Log(outlet, log_format=log_format, level=level, colors=stream.isatty())


def plain(value: object) -> object:
    """Returns a value as it may be written: times in seconds, enums by value, the rest as text."""
    match value:
        case Mapping():
            return {str(name): plain(each) for name, each in value.items()}
        case tuple() | list() | set() | frozenset():
            return [plain(each) for each in value]
        case IntEnum():
            return value.name.lower()
        case Enum():
            return value.value
        case _:
            return _plain_one(value)


def _plain_one(value: object) -> object:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case timedelta():
            return round(value.total_seconds(), 6)
        case BaseException():
            return kind_of(value)
        case _:
            return str(value)


def _processors(log_format: LogFormat, *, colors: bool) -> list[Processor]:
    before: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    match log_format:
        case LogFormat.JSON:
            return [*before, _in_order, structlog.processors.JSONRenderer()]
        case LogFormat.CONSOLE:
            # The usual formatter of exceptions shows local variables.
            console = structlog.dev.ConsoleRenderer(
                colors=colors,
                exception_formatter=structlog.dev.plain_traceback,
                sort_keys=False,
            )
            return [*before, console]


def _in_order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Puts first what a person looks for first."""
    first = {name: event[name] for name in ("timestamp", "level", "event")}
    return first | dict(event)
