"""What all replicas share beside the grants: the breaker and the guard, in one row."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from broker.domain.breaker import Breaker
from broker.domain.guard import Guard


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetState:
    """The row. Which changes there are is in `breaker.py` and `guard.py`."""

    breaker: Breaker | None = None
    guard: Guard = field(default_factory=Guard)
    timeline: str = ""
    """Which past of the database the broker last worked with; empty: none yet."""

    timeline_since: datetime | None = None
    """When it was found to be another one than before; None: it never was."""
