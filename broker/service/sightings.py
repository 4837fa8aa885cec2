"""Attempts that PostgreSQL's clock will not end in time, watched on the event loop's.

The rules are in `domain/clocks.py`. What is remembered here is when this process first saw such an
attempt; nothing, as long as that clock runs as clocks do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from broker.domain.clocks import as_watched, is_out_of_reach
from broker.domain.grant import Attempt
from broker.ports import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sighting:
    """An attempt as it was first seen; one that is armed later has another deadline."""

    number: int
    deadline: datetime
    at: float

    def is_of(self, attempt: Attempt) -> bool:
        """Whether it was this attempt that was seen."""
        return (self.number, self.deadline) == (attempt.number, attempt.deadline)


class Sightings:
    """The first sightings, one a tenant."""

    def __init__(self) -> None:
        self._first: dict[str, _Sighting] = {}

    def heed(self, snapshot: Snapshot, at: float) -> Snapshot:
        """Returns what was read, with the deadline of its attempt put right where it cannot be.

        `at`: after the answer came, on the loop's clock: by then the attempt was under way.
        """
        grant, attempt = snapshot.grant, snapshot.grant.attempt
        if attempt is None:
            self._first.pop(grant.tenant, None)
            return snapshot
        first = self._sighting(grant.tenant, attempt, now=snapshot.read_at, at=at)
        if first is None:
            return snapshot
        watched = timedelta(seconds=at - first.at)
        known = as_watched(attempt, snapshot.read_at, watched=watched)
        return replace(snapshot, grant=replace(grant, attempt=known))

    def _sighting(
        self, tenant: str, attempt: Attempt, *, now: datetime, at: float
    ) -> _Sighting | None:
        """Returns the first sighting of an attempt that is or was out of reach."""
        first = self._first.pop(tenant, None)
        if first is None or not first.is_of(attempt):
            if not is_out_of_reach(attempt, now):
                return None
            first = _Sighting(number=attempt.number, deadline=attempt.deadline, at=at)
        self._first[tenant] = first
        return first
