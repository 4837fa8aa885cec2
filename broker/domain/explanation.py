"""What is known of a grant at a moment, and what the broker does next with it, unasked.

The story that is told of it is in `story.py`. Pure: looks at nothing and decides nothing that is
carried out; what is carried out is decided in `next_step.py` and where the writes are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import assert_never

from broker.domain.breaker import Breaker
from broker.domain.clocks import is_pausing
from broker.domain.disclosure import Disclosure
from broker.domain.evidence import GUARD_WINDOW
from broker.domain.freshness import Freshness, freshness
from broker.domain.grant import AttemptPhase, Grant, GrantState
from broker.domain.guard import Guard
from broker.domain.history import AttemptRecord, RecordedEvent
from broker.domain.trouble import Trouble, is_store_in


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """All that the story is told from; the newest of everything first."""

    grant: Grant
    now: datetime
    """PostgreSQL's time when the row was read."""

    attempts: tuple[AttemptRecord, ...] = ()
    events: tuple[RecordedEvent, ...] = ()
    disclosures: tuple[Disclosure, ...] = ()
    breaker: Breaker | None = None
    guard: Guard = field(default_factory=Guard)
    key_id: int | None = None
    troubles: tuple[Trouble, ...] = ()
    """What the replica that tells it finds bad."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What the fleet guard does with a grant."""

    since: datetime
    until: datetime
    """Then the refusal counts, unless somebody decides before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What the broker does next."""

    description: str
    due_at: datetime | None = None
    """None: it waits for somebody instead of a time."""


def hold_of(known: Known) -> Hold | None:
    """Returns the guard's hold; None: the grant is not held."""
    reauth = known.grant.reauth
    if known.grant.state is not GrantState.HELD or reauth is None:
        return None
    # Where the guard watches again already, what it held follows at its next turn.
    return Hold(since=reauth.since, until=known.guard.until or known.now)


def planned(known: Known) -> Planned | None:
    """Returns what comes next; None: nothing is planned."""
    grant = known.grant
    match grant.state:
        case GrantState.UNCONNECTED:
            return None
        case GrantState.REVOKED:
            return None
        case GrantState.REAUTH_REQUIRED:
            return _destruction(grant)
        case GrantState.HELD:
            hold = hold_of(known)
            due_at = hold.until if hold else None
            return Planned(description="the refusal counts, unless it is discarded", due_at=due_at)
        case GrantState.ACTIVE:
            return _presentation(known)
        case _:
            assert_never(grant.state)


def _destruction(grant: Grant) -> Planned | None:
    if grant.pair is None or grant.reauth is None:
        return None
    due_at = grant.quarantined_until or grant.reauth.since + GUARD_WINDOW
    return Planned(description="its sealed tokens are destroyed", due_at=due_at)


def _presentation(known: Known) -> Planned | None:
    grant, now = known.grant, known.now
    if not grant.can_be_presented():
        return None
    attempt = grant.attempt
    if attempt is not None and attempt.is_live(now):
        if attempt.phase is AttemptPhase.UNKNOWN:
            what = "its refresh token is presented once more, when somebody asks"
        else:
            what = f"the end of the attempt of {attempt.replica} is awaited"
        return Planned(description=what, due_at=attempt.deadline)
    if grant.failures.next_try_at is not None and is_pausing(grant.failures, now):
        what = "the refresh is tried again, when somebody asks"
        return Planned(description=what, due_at=grant.failures.next_try_at)
    return _renewal(known)


def _renewal(known: Known) -> Planned:
    grant, now = known.grant, known.now
    if freshness(grant, now) is Freshness.FRESH:
        return Planned(description="its tokens are due for renewal", due_at=grant.renew_at)
    if is_store_in(known.troubles):
        return Planned(description="its renewal waits until PostgreSQL keeps what is written")
    if known.breaker is not None:
        what = "its renewal waits for the breaker; the next probe of the fleet is due"
        return Planned(description=what, due_at=known.breaker.probe_at)
    return Planned(description="its tokens are renewed as soon as somebody asks")
