"""The writes of a consent, an import and a revocation.

See `decision.py` for the laws. A consent is fenced by the number of the last consent, never by the
generation that was read before: that fence would lose consents that were given during a refresh.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final

from broker.domain.claims import Claimer, doubt_of_claim, is_blocked, new_attempt
from broker.domain.decision import Changed, Decision, Unchanged, Why, Write, next_state
from broker.domain.grant import (
    Attempt,
    AttemptPhase,
    Doubt,
    FailureRecord,
    Grant,
    GrantState,
    RejectionRecord,
)
from broker.domain.refresh_writes import Issue, let_go, with_issue

NOT_COUNTED: Final = 1_000_000_000
"""Numbers of attempts from here on were set by the time, after a loss (`past.py`): nobody presents
so often."""


def claim_consent(grant: Grant, claimer: Claimer, *, now: datetime) -> Decision:
    """Takes the right to present a code or an imported refresh token.

    Allowed in any state while no attempt but the claimer's own is live: a consent may end the old
    grant at Pleo, and an old refresh token sent after it may kill the new one.
    """
    if is_blocked(grant, claimer, now):
        return Unchanged(why=Why.ATTEMPT_LIVE)
    attempt = new_attempt(grant, claimer, AttemptPhase.ARMED, now)
    doubt = doubt_of_claim(grant, claimer)
    return Changed(after=replace(grant, attempt=attempt, last_attempt=attempt.number, doubt=doubt))


def store_consented(
    grant: Grant,
    mine: Attempt,
    issued: Issue,
    *,
    import_fingerprint: bytes | None = None,
    now: datetime,
) -> Decision:
    """Stores the pair of an exchange or import, in any state (law 4: a new consent wins).

    Allowed while no later consent or revocation is in the row. Ends every doubt and hold: they were
    about the old pair.
    """
    # A refresh may have replaced the pair since; the consent is in the row all the same.
    if mine.number in {grant.pair_attempt, grant.consent_attempt}:
        return Unchanged(why=Why.ALREADY)
    if next_state(Write.STORE_CONSENTED, grant) is None or grant.consent_attempt >= mine.number:
        return Unchanged(why=Why.MOVED_ON)
    return Changed(
        after=replace(
            with_issue(grant, issued, generation=_generation_of_consent(grant), now=now),
            subject=issued.subject,
            pair_attempt=mine.number,
            pair_base=None,
            consent_attempt=mine.number,
            last_attempt=max(grant.last_attempt, mine.number),
            attempt=None if grant.owns(mine.number) else grant.attempt,
            doubt=Doubt.NONE,
            import_fingerprint=import_fingerprint,
            rejection=RejectionRecord(),
        )
    )


def _generation_of_consent(grant: Grant) -> int:
    """Returns the next generation; after a loss one above all that may have been given before.

    A report about a lost generation must not be taken for one about this. A refresh is fenced by
    the generation that it presents, and counts on.
    """
    generation = grant.generation + 1
    has_lost = grant.last_attempt >= NOT_COUNTED
    return max(generation, grant.last_attempt) if has_lost else generation


def drop_consented(grant: Grant, mine: Attempt, *, subject: str | None) -> Decision:
    """Ends an own attempt whose tokens are not kept. `subject`: the company, where it is known.

    Whether a second consent ends the first grant at Pleo is not known. So, unless the company is
    another one, the grant's own refresh token may be dead of it, with nobody holding what replaced
    it: the same doubt as after a consent whose answer never came.
    """
    decision = let_go(grant, mine)
    is_anothers = None not in {subject, grant.subject} and subject != grant.subject
    if not isinstance(decision, Changed) or is_anothers:
        return decision
    doubt = max(grant.doubt, Doubt.DISCLAIMED)
    return Changed(after=replace(decision.after, doubt=doubt))


def revoke(grant: Grant, *, keeps_pair: bool = False, now: datetime) -> Decision:
    """Ends the grant, once. Destroys its tokens, unless a deletion at Pleo still needs them.

    Takes a new attempt number as the number of the last consent, so that a consent that finishes
    later does not resurrect the grant. The tombstone keeps the numbers, the company and the
    fingerprint of the import.
    """
    state = next_state(Write.REVOKE, grant)
    if state is None:
        already = grant.state is GrantState.REVOKED
        return Unchanged(why=Why.ALREADY if already else Why.STATE)
    number = grant.last_attempt + 1
    return Changed(
        after=replace(
            grant,
            state=state,
            generation=grant.generation + 1,
            pair=grant.pair if keeps_pair else None,
            pair_base=None,
            last_attempt=number,
            consent_attempt=number,
            doubt=Doubt.NONE,
            expires_at=grant.expires_at if keeps_pair else None,
            renew_at=None,
            reauth=None,
            quarantined_until=None,
            failures=FailureRecord(),
            revoked_at=now,
        )
    )


def claim_deletion(grant: Grant, claimer: Claimer, *, generation: int, now: datetime) -> Decision:
    """Takes the right to delete the installation at Pleo, and keeps consents waiting meanwhile.

    Allowed when REVOKED in this generation, with the pair that was kept for it, while no attempt
    but the claimer's own is live. The attempt is only claimed: nothing is presented.
    """
    if grant.state is not GrantState.REVOKED or grant.generation != generation:
        return Unchanged(why=Why.MOVED_ON)
    if is_blocked(grant, claimer, now):
        return Unchanged(why=Why.ATTEMPT_LIVE)
    if grant.pair is None:
        return Unchanged(why=Why.NO_TOKEN)
    attempt = new_attempt(grant, claimer, AttemptPhase.CLAIMED, now)
    doubt = doubt_of_claim(grant, claimer)
    return Changed(after=replace(grant, attempt=attempt, last_attempt=attempt.number, doubt=doubt))


def destroy_pair(grant: Grant, mine: Attempt | None = None) -> Decision:
    """Destroys the tokens that a revocation kept for the deletion at Pleo, and ends its attempt."""
    if grant.state is not GrantState.REVOKED:
        return Unchanged(why=Why.STATE)
    if grant.pair is None:
        return Unchanged(why=Why.ALREADY)
    is_own = mine is not None and grant.owns(mine.number)
    attempt = None if is_own else grant.attempt
    return Changed(after=replace(grant, pair=None, expires_at=None, attempt=attempt))
