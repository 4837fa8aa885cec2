"""Processor time of PostgreSQL and of whoever asks it: what a statement costs on a busy machine.

From Linux's count of nanoseconds for each process. Elsewhere it is the time that went by.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

# The first number is the time on a processor, in nanoseconds (proc_pid_schedstat).
_COUNT: Final = "/proc/{pid}/schedstat"

IS_COUNTED: Final = Path(_COUNT.format(pid="self")).exists()
"""Whether processor time is known: else it is the time that went by."""

_NANOSECONDS: Final = 1e9

_BACKENDS: Final = """
    SELECT pid FROM pg_stat_activity
    WHERE application_name = 'token-broker' AND datname = current_database()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """Who is counted: this thread, and processes."""

    pids: Sequence[int]

    def seconds(self) -> float:
        """Returns what they have spent since they began."""
        if not IS_COUNTED:
            return time.perf_counter()
        return time.thread_time() + sum(map(_processor_seconds, self.pids))


async def by_broker_and_postgres(owner: asyncpg.Connection) -> Spending:
    """Counts this thread, and PostgreSQL's processes for the broker's connections."""
    return Spending(pids=[row["pid"] for row in await owner.fetch(_BACKENDS)])


def _processor_seconds(pid: int) -> float:
    return int(Path(_COUNT.format(pid=pid)).read_text().split()[0]) / _NANOSECONDS
