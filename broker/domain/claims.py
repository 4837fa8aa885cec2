"""Claiming the one right to present: what both kinds of claim share.

Only the owner of the live attempt on a row presents (law 1), and the attempt is committed before
the first byte leaves (law 2). What may have happened to the attempt that a claim replaces becomes
doubt, which only a settled success ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from broker.domain.grant import Attempt, AttemptKind, AttemptPhase, Doubt, Grant


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimer:
    """Who claims, for what, and until when."""

    attempt_id: str
    """The same for a claim that is tried again because its acknowledgement was lost."""

    kind: AttemptKind
    replica: str
    deadline: datetime
    """On PostgreSQL's clock."""

    not_before: datetime | None = None
    """When the last attempt is over that PostgreSQL may have lost (`past.py`)."""


def is_blocked(grant: Grant, claimer: Claimer, now: datetime) -> bool:
    """Whether somebody else's attempt is live, or one may be that PostgreSQL has lost."""
    if claimer.not_before is not None and now < claimer.not_before:
        return True
    attempt = grant.attempt
    return attempt is not None and attempt.is_live(now) and attempt.attempt_id != claimer.attempt_id


def doubt_of_claim(grant: Grant, claimer: Claimer) -> Doubt:
    """Returns the doubt under which the claimer presents. It never falls here.

    An attempt that was armed and never settled may have rotated the grant, and its owner may hold
    the pair: abandoned. One that its owner called unknown may have rotated it, and nobody holds the
    pair: disclaimed. One that was merely claimed sent nothing.
    """
    replaced = grant.attempt
    if replaced is None or replaced.attempt_id == claimer.attempt_id:
        return grant.doubt
    match replaced.phase:
        case AttemptPhase.ARMED:
            return Doubt.ABANDONED
        case AttemptPhase.UNKNOWN:
            return max(grant.doubt, Doubt.DISCLAIMED)
        case AttemptPhase.CLAIMED:
            return grant.doubt
        case _:
            assert_never(replaced.phase)


def new_attempt(grant: Grant, claimer: Claimer, phase: AttemptPhase, now: datetime) -> Attempt:
    """Returns the attempt that the claim puts on the row, with the next number."""
    return Attempt(
        number=grant.last_attempt + 1,
        attempt_id=claimer.attempt_id,
        kind=claimer.kind,
        base_generation=grant.generation,
        deadline=claimer.deadline,
        phase=phase,
        started_at=now,
        replica=claimer.replica,
    )
