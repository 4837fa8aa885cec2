"""The story of a grant in plain words, for a tired person: how it stands, why, and what to do.

Lines without markup, most important first, the last one beginning with `What to do:`. No secret is
in what it is told from, so none is in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final, assert_never

from broker.domain.advice import what_to_do
from broker.domain.explanation import Known
from broker.domain.freshness import Freshness, freshness
from broker.domain.grant import (
    Attempt,
    AttemptKind,
    Doubt,
    FailureKind,
    Grant,
    GrantState,
    ReauthCause,
    TokenPair,
)
from broker.domain.guard import GuardState
from broker.domain.history import AttemptOutcome, AttemptRecord
from broker.domain.moments import at
from broker.domain.outlook import is_hindered, told_of_callers
from broker.domain.trouble import told

_CAUSES: Final = {
    ReauthCause.EXPIRED_OR_REVOKED: "Pleo refused its refresh token, and nothing was in doubt: it"
    " expired, or the customer ended it at Pleo",
    ReauthCause.ROTATION_LOST: "an answer of Pleo's was lost that may have held the newer token,"
    " and Pleo refused the older one",
    ReauthCause.OPERATOR: "an operator ended it",
}

_KINDS: Final = {
    AttemptKind.REFRESH: "refresh",
    AttemptKind.EXCHANGE: "consent",
    AttemptKind.IMPORT: "import",
}

_OUTCOMES: Final = {
    AttemptOutcome.ROTATED: "Pleo issued new tokens",
    AttemptOutcome.REFUSED: "Pleo refused",
    AttemptOutcome.NOT_PROCESSED: "Pleo did not process it",
    AttemptOutcome.UNKNOWN: "no readable answer came",
    AttemptOutcome.MISCONFIGURED: "Pleo refused our client",
    AttemptOutcome.ABANDONED: "its replica fell silent",
    AttemptOutcome.LET_GO: "nothing was sent",
    AttemptOutcome.STALE: "new tokens came, and the grant had moved on",
}


def story(known: Known) -> str:
    """Returns the lines, with line feeds between them."""
    lines = (
        *_standing(known),
        *_under_way(known),
        *_troubles(known),
        *told(known.troubles),
        *told_of_callers(known),
        *_last_attempt(known),
        *_last_act(known),
        *_given_to(known),
        f"What to do: {what_to_do(known)}",
    )
    return "\n".join(lines)


def _standing(known: Known) -> Iterator[str]:
    grant, now = known.grant, known.now
    company = grant.subject or "a company that Pleo has not named"
    match grant.state:
        case GrantState.UNCONNECTED:
            yield f"{grant.tenant} was never connected."
        case GrantState.REVOKED:
            when = f" at {at(grant.revoked_at, now)}" if grant.revoked_at else ""
            yield f"{grant.tenant} was connected to {company}, and was revoked{when}."
        case GrantState.REAUTH_REQUIRED:
            yield f"{grant.tenant} is no longer connected to {company}: {_why(grant, now)}."
        case GrantState.HELD:
            yield (
                f"{grant.tenant} is held: {_why(grant, now)}; but so many were refused at once that"
                " the fleet guard doubts it. Callers are told GRANT_HELD."
            )
        case GrantState.ACTIVE:
            yield f"{grant.tenant} is connected to {company}, at generation {grant.generation}."
            if not is_hindered(known):
                yield _token(grant, now)
        case _:
            assert_never(grant.state)


def _why(grant: Grant, now: datetime) -> str:
    if grant.reauth is None:
        return "the row does not say why"
    said = f" ({grant.reauth.provider_error})" if grant.reauth.provider_error else ""
    return f"{_CAUSES[grant.reauth.cause]}{said}, at {at(grant.reauth.since, now)}"


def _token(grant: Grant, now: datetime) -> str:
    if not isinstance(grant.pair, TokenPair):
        return "Its tokens do not open, so that callers get none."
    if grant.expires_at is None:
        return "There is no access token; one is fetched as soon as somebody asks."
    match freshness(grant, now):
        case Freshness.FRESH if grant.renew_at is not None:
            return f"Callers get its access token, which is renewed from {at(grant.renew_at, now)}."
        case Freshness.EXPIRED:
            return f"Its access token was good until {at(grant.expires_at, now)}."
        case _:
            until = at(grant.expires_at, now)
            return f"Its access token is due for renewal, and good until {until}."


def _under_way(known: Known) -> Iterator[str]:
    attempt = known.grant.attempt
    if attempt is None:
        return
    if attempt.is_live(known.now):
        yield f"{_named(attempt)} is under way until {at(attempt.deadline, known.now)} at most."
    else:
        yield f"{_named(attempt)} should have ended by {at(attempt.deadline, known.now)}."


def _named(attempt: Attempt) -> str:
    return f"Attempt {attempt.number}, a {_KINDS[attempt.kind]} by {attempt.replica},"


def _troubles(known: Known) -> Iterator[str]:
    grant, failures = known.grant, known.grant.failures
    if grant.doubt is not Doubt.NONE and grant.state is not GrantState.REVOKED:
        yield "An answer of Pleo's is missing: it may have issued newer tokens that nobody has."
    if failures.kind is not FailureKind.NONE:
        times = f"{failures.count} in a row" if failures.count > 1 else "once"
        code = f" ({failures.code})" if failures.code else ""
        yield f"Refreshes have failed {times}: {failures.kind.value}{code}."
    if grant.rejection.generation >= grant.generation > 0:
        yield "Callers have reported that Pleo rejects its access token; it is not served again."
    if known.breaker is not None:
        since = at(known.breaker.since, known.now)
        cause = f"{known.breaker.cause.value} ({known.breaker.code})"
        yield f"The breaker of the whole fleet is open since {since}: {cause}."
    if known.guard.state is GuardState.HOLDING and grant.state is GrantState.ACTIVE:
        yield "The fleet guard holds: whatever Pleo refuses now is held until somebody decides."


def _last_attempt(known: Known) -> Iterator[str]:
    for line in known.attempts[:1]:
        ended = at(line.ended_at, known.now)
        yield f"{_named(line.attempt)} ended at {ended}: {_OUTCOMES[line.outcome]}{_answer(line)}."


def _answer(line: AttemptRecord) -> str:
    said = filter(None, (str(line.http_status or ""), line.error))
    words = " ".join(said)
    return f" ({words})" if words else ""


def _last_act(known: Known) -> Iterator[str]:
    for line in known.events[:1]:
        event = line.event
        reason = f", because: {event.reason}" if event.reason else ""
        when = at(line.at, known.now)
        yield f"The last act on record is {event.call} by {event.actor} at {when}{reason}."


def _given_to(known: Known) -> Iterator[str]:
    if not known.disclosures:
        yield "No caller is on record as having been given its tokens."
        return
    last = max(known.disclosures, key=lambda each: each.last_at)
    count = len(known.disclosures)
    callers = "1 caller has" if count == 1 else f"{count} callers have"
    when = f"{last.caller} (generation {last.last_generation}) at {at(last.last_at, known.now)}"
    yield f"{callers} been given its tokens, the last one {when}."
