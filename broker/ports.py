"""What `service/` asks of the world. Each docstring is the contract that conformance suites test.

Time: durations are measured on the running event loop's clock (`loop.time()`, monotonic, seconds).
Deadlines and expiry are on PostgreSQL's clock, which only the store reads; nothing reads the
wall clock of this machine.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Protocol, TypeAlias

from broker.domain.answers import Answer
from broker.domain.authorization import Authorization, Outcome
from broker.domain.disclosure import Disclosure, HandedOut
from broker.domain.escrow import Escrow
from broker.domain.evidence import Evidence
from broker.domain.facts import Fact, LeaseOutcome, LeaseStanding
from broker.domain.fleet import FleetState
from broker.domain.grant import Grant, GrantState
from broker.domain.history import (
    AttemptOutcome,
    AttemptRecord,
    FleetAct,
    GrantEvent,
    RecordedEvent,
)
from broker.domain.imports import Import
from broker.domain.past import Past
from broker.domain.policy import EVERYBODY, Tenants
from broker.domain.renewal import Planned
from broker.domain.requests import AuthorizationRequest, TokenRequest
from broker.domain.secret import AccessToken, RefreshToken


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


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSnapshot:
    """The fleet's row as it was at a moment."""

    state: FleetState
    version: int
    read_at: datetime
    """PostgreSQL's time."""

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

    async def beat(self, replica: str, build: str) -> int:
        """Gives a sign of life; returns how many replicas are alive, this one included."""

    async def weigh(self, answered: AnsweredRefresh) -> Evidence:
        """Counts what the history says, and this attempt, once. Safe to cancel and to retry."""

    async def tenants(self, which: Guarded, *, limit: int) -> Sequence[str]:
        """Returns tenants of refused grants: the longest refused first, of those believed the last.

        Where a limit cuts off, what a hold may still be about comes before what is over.
        """


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


class ConsentStore(Protocol):
    """Pending consents and imports. Errors as in `GrantStore`.

    What seals (`start`, `fingerprint`) may raise `KeyUnavailable` and `RecordUnreadable`; what is
    only read and does not open is None.
    """

    async def start(self, authorization: Authorization) -> None:
        """Stores a new authorization; deletes what has been over for long."""

    async def find(self, state_hash: bytes) -> tuple[Authorization, datetime] | None:
        """Reads one, and PostgreSQL's time. An expired one is found until it is deleted."""

    async def spend(self, state_hash: bytes, outcome: Outcome) -> None:
        """Spends a state without a claim, with its outcome, unless it is spent already."""

    async def find_import(self, fingerprint: bytes) -> Import | None:
        """Reads the record of an imported token, whichever tenant brought it."""

    async def fingerprint(self, refresh_token: RefreshToken) -> bytes:
        """Returns the keyed fingerprint of a token, the same on every replica."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewrapBatch:
    """What became of some rows that were under another key than the primary one."""

    rewrapped: int
    unreadable: int
    """They do not open, and stay as they were."""

    passed_over: int
    """They were written meanwhile, or are being written."""


class KeyStore(Protocol):
    """Which keys of the keyset rows are sealed under. Errors as in `GrantStore`."""

    def primary_key_id(self) -> int:
        """Returns the key that this replica seals under now."""

    def can_open(self, key_id: int) -> bool:
        """Whether this replica has the key."""

    async def key_use(self) -> Mapping[int, int]:
        """Counts the rows under each key. Reads all rows: not for every request."""

    async def note_rewrap(self, *, by: str, reason: str) -> None:
        """Records who rewraps, and why."""

    def rewrap(self) -> AsyncGenerator[RewrapBatch, None]:
        """Goes once through all rows under other keys, and seals them under the primary one.

        Fenced so that a concurrent rotation is never overwritten (law 4). May be closed at any
        time: what is done stays done. Raises `KeyUnavailable` where a row's key is missing.
        """


class EscrowKeys(Protocol):
    """Which keys escrows are sealed under."""

    async def key_use(self) -> Mapping[int, int] | None:
        """Counts the escrows under each key; None: Redis cannot be asked. Never raises."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class WireWindow:
    """When a request may be sent, on the event loop's clock in seconds."""

    send_by: float
    """The body is not written after this: the attempt is `NotProcessed` then."""

    answer_by: float
    """The answer is listened for until this, shortly before the attempt's deadline."""

    on_sending: Callable[[], None]
    """Called right before the first byte of the body is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Presentation:
    """What came of one token request."""

    answer: Answer
    sent_at: float | None
    """On the event loop's clock; None: not sent. `expires_in` counts from here."""

    http_status: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Introspection:
    """What Pleo's API says to an access token (pleo.md, "Who the tenant is")."""

    is_live: bool | None
    """None: no readable answer."""

    subject: str | None = None
    scopes: tuple[str, ...] | None = None


class Provider(Protocol):
    """Pleo. No method raises for anything that Pleo or the network does."""

    def authorization_uri(self, request: AuthorizationRequest) -> str:
        """Builds the address to send the customer's browser to."""

    async def present(self, request: TokenRequest, window: WireWindow) -> Presentation:
        """Sends one token request, once, and reads the answer.

        Not safe to cancel after `on_sending`: the answer would be lost (law 3).
        """

    async def introspect(self, access_token: AccessToken) -> Introspection:
        """Asks Pleo's API who the token is for, in at most 5 s. Safe to cancel and to retry.

        Where no API URL is set, nothing is asked and nothing known.
        """

    async def delete_installation(self, access_token: AccessToken) -> None:
        """Deletes our installation at Pleo (`DELETE /v1/installations/me`). Safe to retry.

        Raises:
            ProviderUnavailable: Pleo refused, or was not asked.
            RefreshOutcomeUnknown: no answer came, and Pleo may do it yet.
        """


class Chance(Protocol):
    """Where randomness comes from: the operating system's, or a simulation's seed."""

    def jitter(self) -> float:
        """Returns a number in [0, 1)."""

    def identifier(self) -> str:
        """Returns a name that nobody else has: 128 bits, hexadecimal."""

    def urlsafe_secret(self) -> str:
        """Returns 256 bits in 43 characters of the URL-safe Base64 alphabet (RFC 7636 §4.1)."""


class Observer(Protocol):
    """Who is told what happened."""

    def observe(self, fact: Fact) -> None:
        """Takes note. Never raises, never blocks, never changes what happens."""
