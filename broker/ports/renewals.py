"""Planned work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from broker.domain.renewal import Planned


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A grant that this replica is to renew."""

    tenant: str
    delay: timedelta
    """Since it was due."""


class Renewals(Protocol):
    """What is due as planned work. Raises `StoreUnavailable`, and nothing else."""

    async def take(self, which: Planned, *, limit: int) -> Sequence[Due]:
        """Takes the longest overdue ones, which nobody else is given for `TAKEN_FOR`.

        What is locked by another transaction is passed over. Costs what is due, however many grants
        there are.
        """
        ...
