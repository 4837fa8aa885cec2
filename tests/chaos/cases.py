"""One tenant under one fault: what befell it, and what its callers were told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from broker.sandbox.sandbox import Sandbox
from chaos.calls import Call
from support.onboarding import Customer
from support.replica import Replica


class Place(StrEnum):
    """How far an attempt was when its process was struck: the last event of its log."""

    BEFORE = "before all"
    STARTED = "flight_started"
    LEASED = "lease_answered"
    CLAIMED = "attempt_claimed"
    SENDING = "attempt_sending"
    ANSWERED = "attempt_answered"
    SETTLED = "attempt_settled"
    ENDED = "flight_ended"


_PLACES: Final = tuple(Place)


class Allowance(StrEnum):
    """Whose fault it may be that a pair is lost."""

    NOBODY = "nobody"
    PROCESS = "process"
    """It was killed, or paused past every deadline, with the pair on its way or in its hands."""

    PROVIDER = "provider"
    """It rotated, and did not say so."""


@dataclass(slots=True, kw_only=True)
class Case:
    """A tenant."""

    fault: str
    mode: str
    customer: Customer
    allowance: Allowance = Allowance.NOBODY
    owner: Replica | None = None
    """Who is struck."""

    place: Place | None = None
    """Where it was when it was struck; None: nobody was."""

    is_paused: bool = False
    woken_at: datetime | None = None
    calls: list[Call] = field(default_factory=list)
    is_told: bool = True
    """Whether its callers had an answer for good in the end."""

    longest: float = 0.0
    """Seconds that one of them asked for it."""

    notes: list[str] = field(default_factory=list)
    """What else was not as it has to be; each counts as a wrong answer."""

    @property
    def tenant(self) -> str:
        """The tenant."""
        return self.customer.tenant


def place_of(replica: Replica, tenant: str) -> Place:
    """Returns how far a replica is with a tenant."""
    seen = {each["event"] for each in replica.told_of(tenant)}
    return max((each for each in _PLACES if each in seen), key=_PLACES.index, default=Place.BEFORE)


def release(sandbox: Sandbox, cases: Iterable[Case]) -> None:
    """Lets the held requests of these cases go on, and holds up no further ones."""
    companies = {each.customer.company for each in cases}
    for rule in list(sandbox.faults.rules):
        if rule.company in companies:
            sandbox.faults.rules.remove(rule)
    for held in list(sandbox.room.held.values()):
        if held.company in companies:
            sandbox.room.release(held.number)
