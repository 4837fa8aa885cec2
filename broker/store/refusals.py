"""Whether PostgreSQL lately refused to write: what only a write finds out, kept for health.

A full disk lets every read through, and a probe that wrote would be one more writer on it. So the
writes that happen anyway are listened to. Nothing is concluded from one that succeeds: on a full
disk some still find room in a page, and health would turn to and fro.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import asyncpg

REMEMBERED_SECONDS: Final = 25.0
"""Two signs of life of a replica (10 s each) and what the second may take: where writes go on being
refused there is always one as young as that."""

_CODES: Final = {"53100": "DISK_FULL", "25006": "READ_ONLY"}
"""SQLSTATEs (PostgreSQL's manual, appendix A) of a server that reads and does not write."""


class Refusals:
    """The last refusal."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds that never go back."""
        self._clock = clock
        self._code = ""
        self._at = 0.0

    def note(self, error: BaseException) -> None:
        """Takes note of what a statement ended with, if it is a refusal to write."""
        cause = error.__cause__ or error
        if isinstance(cause, asyncpg.PostgresError) and (code := _CODES.get(cause.sqlstate or "")):
            self._code, self._at = code, self._clock()

    def latest(self) -> str:
        """Returns why a write was refused lately, as health calls it; empty: none was."""
        is_old = self._clock() - self._at > REMEMBERED_SECONDS
        return "" if is_old else self._code
