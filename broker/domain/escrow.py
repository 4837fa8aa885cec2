"""An escrow: a pair that Pleo issued and PostgreSQL did not take, kept sealed elsewhere (law 3).

There is one for each attempt, never one for each tenant: two presentations of one grant may both
have been honoured. It stands for the write that its owner would have made, under the same
conditions; whoever finds it may make that write.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from broker.domain.consent_writes import drop_consented, store_consented
from broker.domain.decision import Changed, Decision, Unchanged, Why
from broker.domain.grant import Attempt, AttemptKind, AttemptPhase, Doubt, Grant
from broker.domain.refresh_writes import Issue, let_go, store_rotated
from broker.domain.secret import RefreshToken


@dataclass(frozen=True, slots=True, kw_only=True)
class Escrow:
    """What is needed to store the pair of one attempt."""

    tenant: str
    attempt: Attempt
    issued: Issue
    import_fingerprint: bytes | None = None
    """Of the imported token whose record it concludes."""

    imported: RefreshToken | None = None
    """The imported token, or what it was rotated to before: what the attempt presented."""

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
    if _is_presented_by_another(escrow, adopter, grant, now):
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


def refuse_adoption(
    escrow: Escrow, grant: Grant, *, adopter: Attempt | None = None, now: datetime
) -> Decision:
    """Ends a consent's attempt in its owner's place, where its pair may not become the grant.

    Not while an armed attempt is live, as in `adopt`: an import's may be about the same token, and
    put on record what came of it when this is done.
    """
    if _is_presented_by_another(escrow, adopter, grant, now):
        return Unchanged(why=Why.ATTEMPT_LIVE)
    mine, is_kept = escrow.attempt, escrow.attempt.kind is AttemptKind.IMPORT
    subject = escrow.issued.subject
    decision = let_go(grant, mine) if is_kept else drop_consented(grant, mine, subject=subject)
    # Somebody has claimed since: the row is as it was, and the rest is written all the same.
    return decision if isinstance(decision, Changed) else Changed(after=grant)


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


def _is_presented_by_another(
    escrow: Escrow, adopter: Attempt | None, grant: Grant, now: datetime
) -> bool:
    attempt, numbers = grant.attempt, {escrow.attempt.number}
    if adopter is not None:
        numbers.add(adopter.number)
    return (
        attempt is not None
        and attempt.number not in numbers
        and attempt.phase is AttemptPhase.ARMED
        and attempt.is_live(now)
    )
