"""PostgreSQL as a few dictionaries: what the fakes of the store share, and how a test breaks it.

One world is one database; every replica of a simulation has its own `FakeGrantStore` on it. Nothing
is written between two `await`s of one call, so that each call is one transaction. Time is what
`now` says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias

from broker.domain.authorization import Authorization
from broker.domain.disclosure import Disclosure
from broker.domain.errors import KeyUnavailable, StoreUnavailable
from broker.domain.fleet import FleetState
from broker.domain.grant import Grant
from broker.domain.history import AttemptRecord, FleetAct, GrantEvent
from broker.domain.imports import Import
from broker.domain.past import Past


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a port on its way."""

    method: str
    tenant: str
    """Empty where the call is about no tenant in particular."""


Hook: TypeAlias = Callable[[Call], Awaitable[None]]
"""May wait, and may raise what the port may raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeRow:
    """A grant as it lies in the world, with its pair in clear."""

    grant: Grant
    version: int
    changed: int
    """Number of the transaction in which others last had to be told."""

    exclusive_subject: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A backup of a world."""

    rows: Mapping[str, FakeRow]
    authorizations: Mapping[bytes, Authorization]
    imports: Mapping[tuple[str, bytes], Import]
    fleet: FleetState
    fleet_version: int
    transaction: int


async def _let_pass(_: Call) -> None:
    """What hooks do unless a test says otherwise."""


@dataclass(slots=True, kw_only=True)
class FakeWorld:
    """One database. Tests read it and change it as they like."""

    now: Callable[[], datetime]
    rows: dict[str, FakeRow] = field(default_factory=dict)
    authorizations: dict[bytes, Authorization] = field(default_factory=dict)
    imports: dict[tuple[str, bytes], Import] = field(default_factory=dict)
    attempts: list[AttemptRecord] = field(default_factory=list)
    events: list[GrantEvent] = field(default_factory=list)
    acts: list[FleetAct] = field(default_factory=list)
    disclosures: dict[tuple[str, str], Disclosure] = field(default_factory=dict)
    """By tenant and caller."""

    fleet: FleetState = field(default_factory=FleetState)
    fleet_version: int = 1
    replicas: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    """Each one's build, and when it last gave a sign of life."""

    renewals_taken: dict[str, datetime] = field(default_factory=dict)
    """Until when each tenant's renewal is somebody's."""

    transaction: int = 1
    """Number of the next transaction."""

    timeline: int = 1
    """One more with every restore."""

    unreadable: dict[str, bool] = field(default_factory=dict)
    """Tenants whose stored pair does not open; True: for want of the key."""

    seals: bool = True
    """False: nothing can be sealed."""

    takes_history: bool = True
    """False: lines of the history are refused."""

    on_arrival: Hook = _let_pass
    """Runs before a call does anything: what it raises, nothing was written."""

    on_departure: Hook = _let_pass
    """Runs after a call has done everything: what it raises, the acknowledgement was lost."""

    _failing: dict[tuple[str, str], int] = field(default_factory=dict)

    def fail_next(
        self, method: str, *, when: Literal["arrival", "departure"] = "arrival", times: int = 1
    ) -> None:
        """Lets the next calls of a method raise `StoreUnavailable`, before or after their work."""
        self._failing[(method, when)] = times

    async def arrive(self, method: str, tenant: str = "") -> None:
        """Begins a call."""
        await self.on_arrival(Call(method=method, tenant=tenant))
        self._maybe_fail(method, "arrival")

    async def depart(self, method: str, tenant: str = "") -> None:
        """Ends a call whose work is done."""
        await self.on_departure(Call(method=method, tenant=tenant))
        self._maybe_fail(method, "departure")

    def _maybe_fail(self, method: str, when: str) -> None:
        left = self._failing.get((method, when), 0)
        if left:
            self._failing[(method, when)] = left - 1
            raise StoreUnavailable(f"the test lets {method} fail at its {when}")

    def past(self) -> Past:
        """Returns the past, as a statement sees it."""
        fleet = self.fleet
        return Past(live=self.live(), known=fleet.timeline, since=fleet.timeline_since)

    def live(self) -> str:
        """Returns what the server says of itself."""
        return f"world/{self.timeline}"

    def begin(self) -> int:
        """Returns the number of a new transaction."""
        self.transaction += 1
        return self.transaction - 1

    def seal(self, tenant: str) -> None:
        """Stands where something is sealed."""
        if not self.seals:
            raise KeyUnavailable("the test lets sealing fail", tenant=tenant)

    def save(self) -> Saved:
        """Makes a backup of all but the history."""
        return Saved(
            rows=dict(self.rows),
            authorizations=dict(self.authorizations),
            imports=dict(self.imports),
            fleet=self.fleet,
            fleet_version=self.fleet_version,
            transaction=self.transaction,
        )

    def restore(self, saved: Saved, *, is_told: bool = True) -> None:
        """Loses every commit since the backup, as a failover to a copy that lags behind.

        `is_told`: not as a snapshot of the disks, after which the server calls itself the same.
        """
        self.rows = dict(saved.rows)
        self.authorizations = dict(saved.authorizations)
        self.imports = dict(saved.imports)
        self.fleet, self.fleet_version = saved.fleet, saved.fleet_version
        self.transaction = saved.transaction
        self.timeline += is_told
