"""Which grants are rotated although nobody waits for it.

Those in use are, ahead of their expiry, and idle ones before their refresh token dies of age.

The store asks PostgreSQL the same question; its conformance suite sees to it that both agree.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from broker.domain.grant import AttemptPhase, Doubt, Grant, GrantState, TokenPair

TAKEN_FOR: Final = timedelta(seconds=30)
"""How long a replica that has taken a renewal is left alone with it: as long as a refresh may wait
for its turn and be on the wire. A replica that dies meanwhile costs no more than that."""


LATE: Final = timedelta(minutes=1)
"""After its renewal time a grant in use is late: twice what a replica that died with it costs, so
that something has kept many of them."""


class Planned(StrEnum):
    """Why a grant is to be rotated."""

    IN_USE = "in_use"
    """Asked for since its last rotation, and its renewal time has come (law 9)."""

    IDLE = "idle"
    """Nobody asks; its refresh token is as old as one may become."""


def due_since(grant: Grant, which: Planned, *, keepalive: timedelta) -> datetime | None:
    """Returns since when a grant is due, whether that has come or not; None: never.

    `keepalive`: after which an idle one is rotated.
    """
    if grant.state is not GrantState.ACTIVE or grant.refreshed_at is None:
        return None
    if which is Planned.IDLE:
        return grant.refreshed_at + keepalive
    is_used = grant.last_used_at is not None and grant.last_used_at >= grant.refreshed_at
    return grant.renew_at if is_used else None


def is_late(grant: Grant, now: datetime) -> bool:
    """Whether a grant in use is long past its renewal time, and so probably many are.

    What nobody asked for is not late, however long it has been due.
    """
    since = due_since(grant, Planned.IN_USE, keepalive=timedelta(0))
    return since is not None and now - since > LATE


def may_be_renewed(grant: Grant, now: datetime) -> bool:
    """Whether nothing is in the way. What is in abandoned doubt waits for a caller.

    A renewal has its place at the turnstile, and a quarantine would keep it for nothing.
    """
    if not isinstance(grant.pair, TokenPair) or grant.pair.refresh_token is None:
        return False
    attempt, next_try_at = grant.attempt, grant.failures.next_try_at
    is_free = attempt is None or (
        attempt.phase is AttemptPhase.UNKNOWN and not attempt.is_live(now)
    )
    is_pausing = next_try_at is not None and next_try_at > now
    return is_free and not is_pausing and grant.doubt is not Doubt.ABANDONED
