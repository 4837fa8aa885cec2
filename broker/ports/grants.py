"""The grants in PostgreSQL: rows, their writes, and what changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeAlias

from broker.domain.authorization import Outcome
from broker.domain.grant import Grant, GrantState
from broker.domain.history import AttemptRecord, GrantEvent
from broker.domain.imports import Import
from broker.domain.past import Past
from broker.domain.policy import EVERYBODY, Tenants


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A grant as its row was at a moment."""

    grant: Grant
    version: int
    """Grows with every change of the row; 0: there is no row."""

    read_at: datetime
    """PostgreSQL's `clock_timestamp()` in the statement that read or wrote the row."""

    past: Past = field(default_factory=Past)
    """As that same statement saw it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """Spends a state, in the same transaction as the claim that it allows."""

    state_hash: bytes
    code_hash: bytes
    attempt_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unspend:
    """Makes a spent state good again, because its code never left. Not one that is concluded."""

    state_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclude:
    """Records how an authorization ended, and destroys its verifier."""

    state_hash: bytes
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class PutImport:
    """Writes an import's row: the sealed token before it is presented, the outcome after.

    Does not apply where the token is another tenant's import.
    """

    record: Import


Beside: TypeAlias = Spend | Unspend | Conclude | PutImport


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A grant's new row, and what is written in the same transaction."""

    after: Grant
    ended: AttemptRecord | None = None
    event: GrantEvent | None = None
    beside: Beside | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """A page of grants, by tenant. Tombstones are shown, UNCONNECTED rows are not."""

    after_tenant: str = ""
    limit: int = 100
    states: frozenset[GrantState] = frozenset()
    """Empty: all."""

    updated_after: datetime | None = None
    tenants: Tenants = EVERYBODY
    """Others are left out, so that a page is as long as it would be without them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantMoved:
    """A grant has another generation or state than before."""

    tenant: str
    generation: int
    version: int = 0
    """Of the row when it moved: a copy of this or a later version is up to date. 0: not told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangesPage:
    """What changed since a cursor, and the next cursor."""

    moved: Sequence[GrantMoved]
    cursor: int
    is_rewound: bool
    """PostgreSQL's transaction ids went back: restored, or failed over to an older copy. Whatever
    is in memory may be newer or other than the rows."""


class GrantStore(Protocol):
    """The grants in PostgreSQL: the only authority.

    Every method raises `StoreUnavailable` when PostgreSQL cannot be reached or does not answer in
    time, and nothing else of the driver's.
    """

    async def read(self, tenant: str) -> Snapshot:
        """Reads one grant; a tenant without a row is `Grant(tenant=…)` of version 0.

        A pair that does not open is an `UnreadablePair`, not an error. Safe to cancel and to retry.
        """

    async def apply(self, before: Snapshot, change: Change) -> Snapshot | None:
        """Writes `change` if the row still has `before.version`, and `beside` if it still applies.

        Only where the row is of the past that `before` was read in: after a failover the same
        version may be another row.

        Returns the row as written, or None when it changed meanwhile or `beside` does not apply
        (a state that is spent already): then nothing is written. All in one transaction, whose
        commit is durable. A line of the history (`ended`, `event`) that PostgreSQL refuses never
        rolls the grant back. Columns for use (`last_used_at`) are not written.

        Raises:
            StoreUnavailable: also when the acknowledgement of the commit was lost; it may have been
            committed. Read again to know: versions and attempt numbers tell.
            SubjectAlreadyConnected: a consent's company belongs to another tenant, and sharing is
            not allowed. Nothing is written. Other writes never raise this: a rotated pair is
            stored whoever the company turns out to be.
            KeyUnavailable, RecordUnreadable: what is to be stored cannot be sealed, or, for a
            change that arms an attempt, nothing could be (tried before anything is sent). Nothing
            is written.
        Not safe to cancel where the caller must know what happened; shield it.
        """

    async def list_grants(self, query: ListQuery) -> Sequence[Grant]:
        """Reads a page, without tokens (`pair` is None). Safe to cancel and to retry."""

    async def changes(self, cursor: int) -> ChangesPage:
        """Reads what changed since the cursor; -1 gives the present cursor and no changes.

        A change may be given more than once and is never left out, transactions that commit late
        included. Safe to cancel and to retry.
        """

    async def note_used(self, tenants: Sequence[str]) -> None:
        """Records that tokens were asked for. Changes no version. Safe to retry."""
