"""Attempts of which PostgreSQL's clock may tell the end wrongly, watched on the event loop's.

The rules are in `domain/clocks.py`. What is remembered here is when this process first saw the
attempt that is on a row, until it reads the row without one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from broker.domain.clocks import as_watched, is_out_of_reach
from broker.domain.grant import Attempt
from broker.ports import Snapshot

LEAP: Final = timedelta(seconds=5)
"""By which PostgreSQL's clock must have gained on the loop's: less may be two slow answers, and is
covered by the quarantine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sighting:
    """An attempt as it was first seen; one that is armed later has another deadline."""

    number: int
    deadline: datetime
    at: float
    read_at: datetime
    is_out_of_reach: bool
    """Whether its deadline was ever farther ahead than can be."""

    def is_of(self, attempt: Attempt) -> bool:
        """Whether it was this attempt that was seen."""
        return (self.number, self.deadline) == (attempt.number, attempt.deadline)

    def was_leapt(self, now: datetime, asked_at: float) -> bool:
        """Whether PostgreSQL's clock has leapt forward since."""
        return now - self.read_at > timedelta(seconds=asked_at - self.at) + LEAP


class Sightings:
    """The first sightings, one a tenant."""

    def __init__(self) -> None:
        self._first: dict[str, _Sighting] = {}

    def heed(
        self, snapshot: Snapshot, *, asked_at: float, answered_at: float
    ) -> tuple[Snapshot, float | None]:
        """Returns what was read, with the deadline of its attempt put right where it cannot be.

        And when that attempt was first seen, if PostgreSQL's clock has leapt forward since. When
        an answer has come, the attempt was under way.
        """
        grant, attempt, now = snapshot.grant, snapshot.grant.attempt, snapshot.read_at
        if attempt is None:
            self._first.pop(grant.tenant, None)
            return snapshot, None
        first = self._sighting(grant.tenant, attempt, now=now, at=answered_at)
        leapt_from = first.at if first.was_leapt(now, asked_at) else None
        if not first.is_out_of_reach:
            return snapshot, leapt_from
        known = as_watched(attempt, now, watched=timedelta(seconds=answered_at - first.at))
        return replace(snapshot, grant=replace(grant, attempt=known)), leapt_from

    def _sighting(self, tenant: str, attempt: Attempt, *, now: datetime, at: float) -> _Sighting:
        first, is_wrong = self._first.get(tenant), is_out_of_reach(attempt, now)
        if first is None or not first.is_of(attempt):
            first = _Sighting(
                number=attempt.number,
                deadline=attempt.deadline,
                at=at,
                read_at=now,
                is_out_of_reach=is_wrong,
            )
        elif is_wrong and not first.is_out_of_reach:
            first = replace(first, at=at, read_at=now, is_out_of_reach=True)
        self._first[tenant] = first
        return first
