"""An escrow: a pair that Pleo issued and PostgreSQL did not take, kept sealed elsewhere (law 3).

There is one for each attempt, never one for each tenant: two presentations of one grant may both
have been honoured. It stands for the write that its owner would have made, under the same
conditions; whoever finds it may make that write.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from broker.domain.consent_writes import store_consented
from broker.domain.decision import Decision, Unchanged, Why
from broker.domain.grant import Attempt, AttemptKind, AttemptPhase, Doubt, Grant
from broker.domain.refresh_writes import Issue, store_rotated


@dataclass(frozen=True, slots=True, kw_only=True)
class Escrow:
    """What is needed to store the pair of one attempt."""

    tenant: str
    attempt: Attempt
    issued: Issue
    import_fingerprint: bytes | None = None
    """Of the imported token whose record it concludes."""

    state_hash: bytes | None = None
    """Of the authorization that it concludes."""

    consent_attempt: int | None = None
    """Of a refresh: the number of the consent that its pair descends from."""


def adopt(
    escrow: Escrow, grant: Grant, *, adopter: Attempt | None = None, now: datetime
) -> Decision:
    """Makes the write that the escrow stands for, in its owner's place.

    Not while an armed attempt is live that is neither the escrow's nor the adopter's: what that one
    presents may be this pair's refresh token, and storing it now would hide that. A merely claimed
    attempt must not block: its owner waits for just this.
    """
    numbers = {escrow.attempt.number} | ({adopter.number} if adopter else set())
    if _is_presented_by_another(numbers, grant, now):
        return Unchanged(why=Why.ATTEMPT_LIVE)
    kind = escrow.attempt.kind
    match kind:
        case AttemptKind.REFRESH:
            return store_rotated(_at_base(escrow, grant), escrow.attempt, escrow.issued, now=now)
        case AttemptKind.EXCHANGE | AttemptKind.IMPORT:
            return store_consented(
                grant,
                escrow.attempt,
                escrow.issued,
                import_fingerprint=escrow.import_fingerprint,
                now=now,
            )
        case _:
            assert_never(kind)


def _at_base(escrow: Escrow, grant: Grant) -> Grant:
    """Returns the row with the generations that PostgreSQL has lost between it and the escrow's.

    Only within one consent, whose company and scopes are in the row; see `recall_writes.py` for
    what the numbers tell.
    """
    mine = escrow.attempt
    if grant.generation >= mine.base_generation or grant.pair_attempt >= mine.number:
        return grant
    if grant.consent_attempt != escrow.consent_attempt:
        return grant
    return replace(grant, generation=mine.base_generation, doubt=Doubt.ABANDONED)


def _is_presented_by_another(numbers: set[int], grant: Grant, now: datetime) -> bool:
    attempt = grant.attempt
    return (
        attempt is not None
        and attempt.number not in numbers
        and attempt.phase is AttemptPhase.ARMED
        and attempt.is_live(now)
    )
