"""What is written down beside the grants, for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from broker.domain.disclosure import Disclosure, HandedOut
from broker.domain.history import AttemptRecord, RecordedEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What is on record about a tenant, the newest of each first."""

    attempts: tuple[AttemptRecord, ...] = ()
    events: tuple[RecordedEvent, ...] = ()
    disclosures: tuple[Disclosure, ...] = ()
    key_id: int | None = None
    """The key that the pair is sealed under; None: there is no pair."""


class Records(Protocol):
    """What is written down beside the grants, for people. Raises `StoreUnavailable` only."""

    async def about(self, tenant: str, *, limit: int) -> Recorded:
        """Reads the newest of everything, `limit` each. Safe to cancel and to retry."""

    async def note_handed_out(self, notes: Sequence[HandedOut]) -> None:
        """Adds to the disclosures, each tenant and caller at most once. Safe to retry."""
