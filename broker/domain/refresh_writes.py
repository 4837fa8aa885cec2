"""The writes of a refresh: claim, arm, store, refuse, call unknown, let go.

See `decision.py` for the laws. Each function names the condition under which it changes the row;
the order of its checks decides only which `Why` is told.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from broker.domain.claims import Claimer, doubt_of_claim, is_blocked, new_attempt
from broker.domain.decision import Changed, Decision, Unchanged, Why, Write, next_state
from broker.domain.grant import (
    Attempt,
    AttemptPhase,
    Doubt,
    FailureRecord,
    Grant,
    GrantState,
    Reauth,
    ReauthCause,
    ScopesSource,
    TokenPair,
)
from broker.domain.secret import AccessToken, RefreshToken


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """What Pleo issued, with its times on PostgreSQL's clock."""

    access_token: AccessToken | None
    """None: a refresh token came alone."""

    refresh_token: RefreshToken
    """The new one; the presented one where Pleo sent none (RFC 6749 §6)."""

    token_type: str
    lifetime: timedelta
    expires_at: datetime
    renew_at: datetime
    scopes: tuple[str, ...] | None = None
    """None: the answer was silent, nothing changed (RFC 6749 §5.1)."""

    scopes_source: ScopesSource = ScopesSource.TOKEN_RESPONSE
    subject: str | None = None
    """None: not asked, or not told."""


def claim_refresh(grant: Grant, claimer: Claimer, *, generation: int, now: datetime) -> Decision:
    """Takes the right to present this generation's refresh token.

    Allowed when ACTIVE, the generation is as read, its refresh token can be presented, and no
    attempt but the claimer's own is live. With abandoned doubt the attempt is only claimed: a
    quarantine and `arm` come before the wire.
    """
    if next_state(Write.CLAIM_REFRESH, grant) is None:
        return Unchanged(why=Why.STATE)
    if grant.generation != generation:
        return Unchanged(why=Why.MOVED_ON)
    if is_blocked(grant, claimer, now):
        return Unchanged(why=Why.ATTEMPT_LIVE)
    if not grant.can_be_presented():
        return Unchanged(why=Why.NO_TOKEN)
    doubt = doubt_of_claim(grant, claimer)
    phase = AttemptPhase.CLAIMED if doubt is Doubt.ABANDONED else AttemptPhase.ARMED
    attempt = new_attempt(grant, claimer, phase, now)
    return Changed(after=replace(grant, attempt=attempt, last_attempt=attempt.number, doubt=doubt))


def arm(grant: Grant, mine: Attempt, *, deadline: datetime, now: datetime) -> Decision:
    """Allows a merely claimed attempt to present, after its quarantine.

    Allowed when ACTIVE, own, live, claimed, the generation is its base, and its refresh token can
    still be presented: it may have been sealed anew meanwhile, under a key that is not here yet.
    """
    attempt = grant.attempt
    if attempt is None or attempt.number != mine.number:
        return Unchanged(why=Why.NOT_OWN)
    if grant.state is not GrantState.ACTIVE or grant.generation != attempt.base_generation:
        return Unchanged(why=Why.MOVED_ON)
    if attempt.phase is not AttemptPhase.CLAIMED:
        is_armed = attempt.phase is AttemptPhase.ARMED
        return Unchanged(why=Why.ALREADY if is_armed else Why.WRONG_PHASE)
    if not attempt.is_live(now):
        return Unchanged(why=Why.OVERDUE)
    if not grant.can_be_presented():
        return Unchanged(why=Why.NO_TOKEN)
    armed = replace(attempt, phase=AttemptPhase.ARMED, deadline=deadline)
    return Changed(after=replace(grant, attempt=armed))


def store_rotated(grant: Grant, mine: Attempt, issued: Issue, *, now: datetime) -> Decision:
    """Stores a rotated pair, late or not, whoever owns the row's attempt (laws 3 and 4).

    Allowed when the generation is the attempt's base and the grant is not revoked; or when one
    other presentation of the same base was stored before: both were honoured, and the later pair is
    the living one. Never over the pair of a later attempt. The attempt and the doubt on the row are
    cleared only if own: another's success must not hide that somebody is on the wire.
    """
    if grant.pair_attempt == mine.number:
        return Unchanged(why=Why.ALREADY)
    if next_state(Write.STORE_ROTATED, grant) is None:
        return Unchanged(why=Why.STATE)
    if grant.pair_attempt > mine.number:
        # After lost commits a generation may be another one than I presented; numbers tell. And
        # no pair is older than the last consent: what came before one is refused here too.
        return Unchanged(why=Why.MOVED_ON)
    if grant.generation != mine.base_generation and not _is_second_success(grant, mine):
        return Unchanged(why=Why.MOVED_ON)
    own = grant.owns(mine.number)
    generation = grant.generation + 1
    return Changed(
        after=replace(
            with_issue(grant, issued, generation=generation, now=now),
            pair_attempt=mine.number,
            pair_base=mine.base_generation,
            # Less where PostgreSQL lost the claim, and numbers must not be given again.
            last_attempt=max(grant.last_attempt, mine.number),
            attempt=None if own else grant.attempt,
            doubt=Doubt.NONE if own else grant.doubt,
        )
    )


def _is_second_success(grant: Grant, mine: Attempt) -> bool:
    return grant.generation == mine.base_generation + 1 and grant.pair_base == mine.base_generation


def with_issue(grant: Grant, issued: Issue, *, generation: int, now: datetime) -> Grant:
    """Returns the grant, ACTIVE, with what was issued and without what failed before."""
    pair = TokenPair(
        access_token=issued.access_token,
        refresh_token=issued.refresh_token,
        generation=generation,
        token_type=issued.token_type,
    )
    told = issued.scopes is not None
    return replace(
        grant,
        state=GrantState.ACTIVE,
        generation=generation,
        pair=pair,
        lifetime=issued.lifetime,
        expires_at=issued.expires_at,
        renew_at=issued.renew_at,
        scopes=issued.scopes if issued.scopes is not None else grant.scopes,
        scopes_source=issued.scopes_source if told else grant.scopes_source,
        subject=issued.subject or grant.subject,
        reauth=None,
        quarantined_until=None,
        failures=FailureRecord(),
        refreshed_at=now,
        revoked_at=None,
    )


def refuse(
    grant: Grant, mine: Attempt, *, provider_error: str, is_held: bool = False, now: datetime
) -> Decision:
    """Believes Pleo that the grant is dead (law 5), or holds it where the fleet guard doubts it.

    Allowed when ACTIVE, the generation is the attempt's base, and the attempt is own and armed.
    Fenced by the generation alone or the attempt alone it kills living grants. Where it is not
    allowed, an own attempt is let go. The doubt stays: the pair that it is about may still come.
    """
    state = next_state(Write.HOLD if is_held else Write.REFUSE, grant)
    if state is None or not _may_refuse(grant, mine):
        return let_go(grant, mine)
    cause = ReauthCause.ROTATION_LOST if grant.doubt else ReauthCause.EXPIRED_OR_REVOKED
    return Changed(
        after=replace(
            grant,
            state=state,
            reauth=Reauth(cause=cause, since=now, provider_error=provider_error),
            quarantined_until=None,  # a replica that does not know it may have left an old one
            attempt=None,
            failures=FailureRecord(),
        )
    )


def _may_refuse(grant: Grant, mine: Attempt) -> bool:
    return (
        grant.generation == mine.base_generation
        and grant.attempt is not None
        and grant.attempt.number == mine.number
        and grant.attempt.phase is AttemptPhase.ARMED
    )


def call_unknown(grant: Grant, mine: Attempt, *, failures: FailureRecord) -> Decision:
    """Records that the wire is closed, no readable answer came, and nothing is held.

    Allowed when own and armed. The attempt and its deadline stay: clearing them would let the next
    one present while Pleo may still be at work.
    """
    attempt = grant.attempt
    if attempt is None or attempt.number != mine.number:
        return Unchanged(why=Why.NOT_OWN)
    if attempt.phase is not AttemptPhase.ARMED:
        return Unchanged(why=Why.WRONG_PHASE)
    return Changed(
        after=replace(
            grant,
            attempt=replace(attempt, phase=AttemptPhase.UNKNOWN),
            doubt=max(grant.doubt, Doubt.DISCLAIMED),
            failures=failures,
        )
    )


def let_go(grant: Grant, mine: Attempt, *, failures: FailureRecord | None = None) -> Decision:
    """Clears an own attempt that presented nothing, or was not processed. Never the doubt."""
    if not grant.owns(mine.number):
        return Unchanged(why=Why.NOT_OWN)
    return Changed(after=replace(grant, attempt=None, failures=failures or grant.failures))
