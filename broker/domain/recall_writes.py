"""Writing back a row that PostgreSQL has lost, from the memory of who stored it.

The numbers of attempts and consents grow with every pair that is stored, and a database that lost
commits holds a prefix of what was. So of two rows the one with the higher numbers came later, over
any number of lost generations and consents: nobody needs to have seen what lies between. Whatever
was presented after the loss has numbers above all that was lost (`past.py`): a row that has moved
on by itself gives way to a newer consent alone, as ever (law 4).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from broker.domain.decision import Changed, Decision, Unchanged, Why
from broker.domain.grant import Attempt, AttemptPhase, Doubt, FailureRecord, Grant


def is_newer(kept: Grant, row: Grant) -> bool:
    """Whether a row that was stored once came after the one that is there."""
    return _place(kept) > _place(row)


def write_back(kept: Grant, row: Grant, *, now: datetime | None) -> Decision:
    """Stores again what was committed once, pair or revocation.

    Allowed when it is newer, and nobody's armed attempt is live at `now`: that one presents the
    row's pair, as when an escrow is adopted. None: a pair that has just come waits for nobody. The
    doubt is abandoned: somebody may remember a still newer pair.
    """
    if not is_newer(kept, row):
        return Unchanged(why=Why.MOVED_ON)
    attempt = row.attempt if _is_later(row.attempt, kept) else None
    if now is not None and attempt is not None and _is_on_the_wire(attempt, now):
        return Unchanged(why=Why.ATTEMPT_LIVE)
    generation = max(kept.generation, row.generation + 1)
    return Changed(
        after=replace(
            kept,
            generation=generation,
            pair=kept.pair and replace(kept.pair, generation=generation),
            last_attempt=max(kept.last_attempt, row.last_attempt),
            attempt=attempt,
            doubt=Doubt.ABANDONED,
            failures=FailureRecord(),
            rejection=max(kept.rejection, row.rejection, key=lambda each: each.generation),
        )
    )


def _is_on_the_wire(attempt: Attempt, now: datetime) -> bool:
    return attempt.phase is AttemptPhase.ARMED and attempt.is_live(now)


def _place(grant: Grant) -> tuple[int, int]:
    return grant.consent_attempt, grant.pair_attempt


def _is_later(attempt: Attempt | None, kept: Grant) -> bool:
    """Whether an attempt began after the pair's: the others were over when it was stored."""
    return attempt is not None and attempt.number > max(_place(kept))
