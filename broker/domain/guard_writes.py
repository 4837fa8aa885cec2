"""The fleet guard's writes to grants: hold back, confirm, discard; and destroying dead tokens.

None of them presents anything, and none touches the attempt or the doubt on the row: a late success
still counts (law 4), and what is presented after a discard is claimed like any other refresh.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from broker.domain.decision import Changed, Decision, Unchanged, Why, Write, next_state
from broker.domain.evidence import GUARD_WINDOW
from broker.domain.grant import Grant, GrantState, Reauth, ReauthCause
from broker.domain.guard import Guard, is_recent

_BY_PLEO: Final = frozenset({ReauthCause.EXPIRED_OR_REVOKED, ReauthCause.ROTATION_LOST})


def hold_back(grant: Grant, guard: Guard) -> Decision:
    """Holds a grant whose refusal was believed shortly before the guard began to hold.

    Allowed when REAUTH_REQUIRED by Pleo's word, refused within the guard's window, its pair is
    still there, and it was not given up by an earlier decision.
    """
    state = next_state(Write.HOLD_BACK, grant)
    reauth = grant.reauth
    if state is None or reauth is None or reauth.cause not in _BY_PLEO:
        return Unchanged(why=Why.STATE)
    if not grant.can_be_presented():
        return Unchanged(why=Why.NO_TOKEN)
    if grant.quarantined_until is not None or not is_recent(reauth.since, guard):
        return Unchanged(why=Why.MOVED_ON)
    return Changed(after=replace(grant, state=state))


def confirm(
    grant: Grant, *, generation: int, quarantine: timedelta, keep_for: timedelta, now: datetime
) -> Decision:
    """Gives a held grant up: as refused, but its tokens stay sealed and are not presented.

    Allowed when HELD, the generation is as read, no attempt is live, and so much time has passed
    since the refusal that a living holder of a newer pair could have stored it. The caller has
    looked for escrows.
    """
    state = next_state(Write.CONFIRM, grant)
    if state is None or grant.reauth is None:
        return Unchanged(why=Why.STATE)
    if grant.generation != generation:
        return Unchanged(why=Why.MOVED_ON)
    if grant.attempt is not None and grant.attempt.is_live(now):
        return Unchanged(why=Why.ATTEMPT_LIVE)
    if now < grant.reauth.since + quarantine:
        return Unchanged(why=Why.TOO_EARLY)
    return Changed(after=replace(grant, state=state, quarantined_until=now + keep_for))


def discard(grant: Grant, *, now: datetime) -> Decision:
    """Makes a held grant ACTIVE again, or one that was given up and is still sealed.

    It is due at once for whoever asks; the claim decides about its presentation. A pair that does
    not open is no reason to hold it for ever: that is told to callers as with any other grant.
    """
    state = next_state(Write.DISCARD, grant)
    if state is None:
        return Unchanged(why=Why.STATE)
    is_given_up = grant.state is GrantState.REAUTH_REQUIRED
    if is_given_up and (grant.quarantined_until is None or grant.quarantined_until <= now):
        return Unchanged(why=Why.MOVED_ON)
    if grant.pair is None:
        return Unchanged(why=Why.NO_TOKEN)
    return Changed(after=replace(grant, state=state, reauth=None, quarantined_until=None))


def destroy_refused(grant: Grant, guard: Guard, *, now: datetime) -> Decision:
    """Destroys the tokens of a grant that Pleo refused, when nobody may want them back.

    Allowed when REAUTH_REQUIRED, and its quarantine, or else the guard's window, has passed. While
    the guard holds, what it may still hold back stays. A newer pair that comes late finds the row
    as the refusal left it otherwise.
    """
    if grant.state is not GrantState.REAUTH_REQUIRED or not isinstance(grant.reauth, Reauth):
        return Unchanged(why=Why.STATE)
    if grant.pair is None:
        return Unchanged(why=Why.ALREADY)
    since = grant.reauth.since
    if now < (grant.quarantined_until or since + GUARD_WINDOW):
        return Unchanged(why=Why.TOO_EARLY)
    if grant.quarantined_until is None and is_recent(since, guard):
        return Unchanged(why=Why.TOO_EARLY)
    return Changed(after=replace(grant, pair=None, expires_at=None, renew_at=None))
