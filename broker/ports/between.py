"""What replicas tell each other through Redis, which decides nothing (law 6)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from broker.domain.escrow import Escrow
from broker.domain.facts import LeaseOutcome, LeaseStanding
from broker.ports.grants import GrantMoved


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSeen:
    """How a lease stands."""

    standing: LeaseStanding
    holder: str = ""
    """The replica; empty where nobody holds it, or by a release that does not say."""

    remaining: timedelta | None = None
    """Until it ends unless it is extended."""


class Leases(Protocol):
    """Leases in Redis: they spare the herd and decide nothing (law 6)."""

    def hold(self, tenant: str) -> AbstractAsyncContextManager[LeaseOutcome]:
        """Asks for the lease of a tenant, extends it while the block runs, releases it after.

        Never raises, and takes no longer than its timeouts. A lease that is lost meanwhile is not
        told: the claim decides. Safe to cancel.
        """

    async def look(self, tenant: str) -> LeaseSeen:
        """Tells how the lease stands, for people. As `hold`: never raises, and takes no longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resubscribed:
    """Announcements may have been missed."""


class Announcements(Protocol):
    """News between replicas, over Redis pub/sub. May be lost, late, or come twice."""

    async def announce(self, moved: GrantMoved) -> None:
        """Tells every replica, if it can. Never raises, and takes no longer than its timeout."""

    def listen(self) -> AsyncIterator[GrantMoved | Resubscribed]:
        """Yields what is announced, and `Resubscribed` first and after every interruption.

        Never ends and never raises; waits while Redis is away.
        """


class Escrows(Protocol):
    """Sealed copies, in Redis, of pairs that PostgreSQL did not take (law 3).

    No method raises, and each takes no longer than a few of its timeouts. Safe to retry. What is
    None is not known: "unreachable" is not "there is none".
    """

    async def put(self, escrow: Escrow) -> bool:
        """Keeps a copy in the attempt's own slot; True: Redis has acknowledged it."""

    async def find(self, tenant: str) -> Sequence[Escrow] | None:
        """Reads a tenant's copies, which stay."""

    async def everything(self) -> Sequence[Escrow] | None:
        """Reads all copies, which stay."""

    async def drop(self, escrow: Escrow) -> None:
        """Deletes a copy, if it can: only what is committed, or stale."""
