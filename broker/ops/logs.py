"""The log: one line an event, with a name that never changes and fields.

Upholds: no global configuration, so that two logs in one process stay apart; a line that cannot be
written (a closed pipe) is counted and stops nobody; values are reduced to plain ones, and an
exception among them to its kind. What is logged, and how loudly, is decided by who calls.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from datetime import timedelta
from enum import Enum, IntEnum
from typing import Final, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from broker.config import LogFormat, LogLevel
from broker.ops.failures import kind_of

_NUMBERS: Final[Mapping[LogLevel, int]] = {
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARNING: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
}


class Log:
    """Writes lines to a stream, standard error unless told otherwise."""

    def __init__(
        self,
        *,
        log_format: LogFormat = LogFormat.JSON,
        level: LogLevel = LogLevel.INFO,
        stream: TextIO | None = None,
    ) -> None:
        """`level`: the least that is written."""
        stream = sys.stderr if stream is None else stream
        self._least = _NUMBERS[level]
        self._lost = 0
        self._logger: FilteringBoundLogger = structlog.wrap_logger(
            structlog.WriteLogger(stream),
            processors=_processors(log_format, stream),
            wrapper_class=structlog.make_filtering_bound_logger(self._least),
            context_class=dict,
        ).bind()

    def takes(self, level: LogLevel) -> bool:
        """Says whether an event of this level would be written."""
        return _NUMBERS[level] >= self._least

    def event(self, name: str, /, *, level: LogLevel = LogLevel.INFO, **fields: object) -> None:
        """Writes `broker_started` and the like. Fields that are None are left out. Never raises.

        Not for secrets: only those in a `Secret` would be held back.
        """
        told = {each: plain(value) for each, value in fields.items() if value is not None}
        if self._lost:
            told["lines_lost"] = self._lost
        try:
            self._logger.log(_NUMBERS[level], name, **told)
        except (OSError, ValueError):
            # The stream is gone, or closed: what the log tells of must not fail for it.
            self._lost += 1
        else:
            self._lost = 0


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


def _processors(log_format: LogFormat, stream: TextIO) -> list[Processor]:
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
                colors=stream.isatty(),
                exception_formatter=structlog.dev.plain_traceback,
                sort_keys=False,
            )
            return [*before, console]


def _in_order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Puts first what a person looks for first."""
    first = {name: event[name] for name in ("timestamp", "level", "event")}
    return first | dict(event)
