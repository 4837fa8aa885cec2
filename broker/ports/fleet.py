"""What the replicas share beside the grants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol

from broker.domain.evidence import Evidence
from broker.domain.fleet import FleetState
from broker.domain.history import AttemptOutcome, FleetAct


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSnapshot:
    """The fleet's row as it was at a moment."""

    state: FleetState
    version: int
    read_at: datetime
    """PostgreSQL's time."""

    alive: int
    """How many replicas have given signs of life of late."""

    live: str = ""
    """The past of the server that answered; empty: a standby."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredRefresh:
    """A refresh that was answered, settled or not yet: what the evidence has to count too."""

    tenant: str
    number: int
    outcome: AttemptOutcome
    error: str
    was_in_doubt: bool = False

    @property
    def is_sure_refusal(self) -> bool:
        """Whether the guard counts it."""
        return self.outcome is AttemptOutcome.REFUSED and not self.was_in_doubt


class Guarded(Enum):
    """Which refused grants."""

    HELD = "held by the guard"
    CERTAIN = "held by the guard, and nothing was in doubt"
    BELIEVED = "REAUTH_REQUIRED, in no quarantine, the pair still there"
    GIVEN_UP = "REAUTH_REQUIRED, in quarantine"
    DEAD = "REAUTH_REQUIRED, the pair still there, quarantine or the guard's window passed"


class FleetStore(Protocol):
    """What the replicas share beside the grants. Raises `StoreUnavailable`, and nothing else."""

    async def read(self) -> FleetSnapshot:
        """Reads the row. Safe to cancel and to retry."""

    async def apply(self, before: FleetSnapshot, after: FleetState) -> FleetSnapshot | None:
        """Writes the row if it still has `before.version` and is of its past; else returns None.

        Where the acknowledgement is lost, read again to know.
        """

    async def note(self, act: FleetAct) -> None:
        """Writes an act among the grants' events. Retried, there are two lines."""

    async def beat(self, replica: str, build: str) -> None:
        """Gives a sign of life. Safe to retry."""

    async def weigh(self, answered: AnsweredRefresh) -> Evidence:
        """Counts what the history says, and this attempt, once. Safe to cancel and to retry."""

    async def tenants(self, which: Guarded, *, limit: int) -> Sequence[str]:
        """Returns tenants of refused grants: the longest refused first, of those believed the last.

        Where a limit cuts off, what a hold may still be about comes before what is over.
        """
